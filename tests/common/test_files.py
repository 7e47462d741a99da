"""Artifacts: whole or not at all, the same bytes for the same content, and one line when a file or the disk is bad."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors import SafetensorError

from condpdiff.common.errors import run
from condpdiff.common.files import (
    check_ours,
    new_directory,
    read_config,
    read_json,
    read_rows,
    read_tensors,
    write_json,
    write_tensors,
)
from condpdiff.common.matrices import RowFile
from tests.messages import message_of

FULL = Path("/dev/full")

# --- new_directory ------------------------------------------------------------------------------


def test_directory_appears_only_when_the_block_succeeds_and_replaces_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    for name in "ab":
        with new_directory(out) as folder:
            assert out.exists() == (name == "b")
            (folder / name).write_text(name)
            write_tensors(folder / "t", {"t": torch.zeros(1)})
        assert sorted(p.name for p in out.iterdir()) == [name, "t"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    assert [oct(p.stat().st_mode & 0o777) for p in (out, out / "t")] == ["0o755", "0o644"]  # others may read them


@pytest.mark.parametrize(("error", "old"), [(ValueError, True), (KeyboardInterrupt, False), (SystemExit, True)])
def test_failing_block_leaves_the_old_directory_and_no_scraps(tmp_path: Path, error: Any, old: bool) -> None:
    if old:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/a").write_text("old")
    with pytest.raises(error), new_directory(tmp_path / "out") as folder:
        (folder / "a").write_text("new")
        raise error
    assert [p.name for p in tmp_path.iterdir()] == ["out"] * old
    assert not old or (tmp_path / "out/a").read_text() == "old"


def test_a_users_folder_is_replaced_only_where_it_holds_what_ours_do(tmp_path: Path) -> None:
    check_ours(tmp_path / "new", "a")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").touch()
    check_ours(tmp_path / "out", "a", "b")
    for path, found in ((tmp_path / "out", "a"), (tmp_path / "out/a", "a file")):
        assert message_of(check_ours, path, "b") == f"{path}: found {found}, which would be lost; allowed: a new folder"


# --- JSON and tensors ---------------------------------------------------------------------------


def test_content_comes_back_and_its_bytes_do_not_depend_on_order(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "é": [2]})
    write_json(tmp_path / "b", {"é": [2], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_json(tmp_path / "a") == {"x": 1, "é": [2]}
    tensors = {"b": torch.randn(3, 4).T, "a": torch.arange(5)}
    write_tensors(tmp_path / "one", tensors, {"y": [1], "x": 2})
    write_tensors(tmp_path / "two", dict(reversed(tensors.items())), {"x": 2, "y": [1]})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found = read_tensors(tmp_path / "one")
    assert found.keys() == tensors.keys() and all(torch.equal(found[key], tensors[key]) for key in tensors)
    assert read_config(tmp_path / "one") == {"y": [1], "x": 2}


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "read_tensors": ("safetensors", read_tensors),
    "RowFile": ("safetensors", lambda path: RowFile(path, "a")),
    "read_rows": ("parquet", lambda path: read_rows(path.parent, path.stem)),
    "read_json": ("json", read_json),
}
WRITERS: dict[str, Callable[[Path], object]] = {
    "safetensors": lambda path: write_tensors(path, {"a": torch.randn(10, 10)}),
    "parquet": lambda path: pd.DataFrame({"a": [1]}).to_parquet(path),
    "json": lambda path: write_json(path, {"content": "words"}),
}


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b[:4], lambda b: b"", lambda b: b"\xff" * 64])
@pytest.mark.parametrize("reader", READERS)
def test_damaged_or_absent_file_is_one_line_that_names_it(tmp_path: Path, reader: str, damage: Any) -> None:
    kind, read = READERS[reader]
    path = tmp_path / f"a.{kind}"
    assert f"a.{kind}: no such file" in message_of(read, path)
    WRITERS[kind](path)
    path.write_bytes(damage(path.read_bytes()))
    assert message_of(read, path).startswith(f"{path}: not ")


def test_what_a_killed_process_left_goes_and_another_s_stays(tmp_path: Path) -> None:
    for name in (".cola.ab12_xyz", ".cola.b.12345678"):
        (tmp_path / name).mkdir()
    with new_directory(tmp_path / "cola") as folder:
        (folder / "x").write_text("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".cola.b.12345678", "cola"]


# --- a full disk --------------------------------------------------------------------------------


def no_space(*_: Any, **__: Any) -> None:
    """How safetensors reports a full disk."""
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("device", ["safetensors", "real"])
def test_full_disk_is_one_line_and_leaves_nothing(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "real" and not os.access(FULL, os.W_OK):
        pytest.skip("no /dev/full here")
    monkeypatch.setattr("safetensors.torch.save_file", no_space)

    def stage() -> None:
        with new_directory(tmp_path / "out") as folder:
            (folder / "written before").write_text("x")
            if device == "safetensors":
                write_tensors(folder / "a.safetensors", {"a": torch.zeros(3)})
            (folder / ".a.json").symlink_to(FULL)
            write_json(folder / "a.json", {"a": 1})

    with pytest.raises(SystemExit, match="the disk is full") as end:
        run(stage)
    assert "\n" not in str(end.value.code)
    assert list(tmp_path.iterdir()) == []
