"""Which Git revision a report says it was made at."""

from pathlib import Path

import pytest

from condpdiff.report.revision import revision
from tests.clone import commit, run


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("a: 1\n")
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "git", "config", "user.name", "test")
    run(tmp_path, "git", "config", "user.email", "test@example.org")
    commit(tmp_path, "one")
    return tmp_path


def test_the_commit_and_whether_settings_or_code_differ_from_it(repository: Path) -> None:
    head = run(repository, "git", "rev-parse", "HEAD").stdout[:12]
    assert revision() == f"`{head}`"
    Path("dvc.lock").write_text("every run writes it\n")
    assert revision() == f"`{head}`"
    for changed in (Path("condpdiff/new.py"), Path("params.yaml")):
        changed.parent.mkdir(exist_ok=True)
        changed.write_text("")
        assert revision() == f"`{head}` with uncommitted changes"
        run(repository, "git", "clean", "--quiet", "-fd")


def test_unknown_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert revision() == "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision() == "unknown"
