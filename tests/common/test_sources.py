"""What sources are read with: paths, packages and the hub; what can't be read is one line."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from condpdiff.common.errors import UserError
from condpdiff.common.sources import hub_data, own_path, package_file
from tests.messages import message_of


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_package_and_own_path_must_be_there_and_an_absolute_one_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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


def read_hub(error: Exception | None) -> None:
    with hub_data("some/set", "rte", "t.yaml", "or do without") as (_, place):
        assert place == "t.yaml: data.source: hub data set some/set (rte)"
        if error:
            raise error


@pytest.mark.parametrize("answers", [True, False])
def test_hub_that_fails_is_one_line_that_says_how_to_do_without(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ConnectionError("no route\nto host")

    def dataset_info(*_: Any, **__: Any) -> None:
        if not answers:
            raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    message = message_of(read_hub, error)
    assert "some/set (rte): cannot be loaded with datasets.load_dataset (no route to host); or do without" in message


@pytest.mark.usefixtures("no_hub")
def test_offline_the_hub_is_not_asked_and_our_own_errors_and_a_full_disk_pass() -> None:
    read_hub(None)
    assert message_of(read_hub, UserError("our own")) == "our own"
    with pytest.raises(OSError, match="full"):
        read_hub(OSError(28, "full"))
