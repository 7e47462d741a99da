"""Artifacts: whole or not at all, the same bytes for the same content, and one line when a file or the disk is bad."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from condpdiff.common.errors import UserError, run
from condpdiff.common.files import new_directory, read_config, read_json, read_tensors, write_json, write_tensors

FULL = Path("/dev/full")


def disk_full(*_: Any, **__: Any) -> None:
    """How safetensors reports a full disk."""
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


# --- new_directory ------------------------------------------------------------------------------


def test_directory_appears_only_when_the_block_succeeds(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with new_directory(out) as folder:
        assert not out.exists()
        (folder / "a").write_text("1")
    assert (out / "a").read_text() == "1"
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failing_block_leaves_neither_a_new_directory_nor_scraps(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), new_directory(tmp_path / "out") as folder:
        (folder / "a").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_failing_block_leaves_the_old_directory_as_it_was(tmp_path: Path) -> None:
    with new_directory(tmp_path / "out") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(ValueError), new_directory(tmp_path / "out") as folder:
        (folder / "a").write_text("new")
        raise ValueError
    assert (tmp_path / "out/a").read_text() == "old"


def test_old_directory_is_replaced_whole(tmp_path: Path) -> None:
    for name in "ab":
        with new_directory(tmp_path / "out") as folder:
            (folder / name).write_text(name)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b"]


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    with new_directory(tmp_path / "out") as folder:
        write_tensors(folder / "a.safetensors", {"a": torch.zeros(1)})
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out/a.safetensors").stat().st_mode & 0o777 == 0o644


# --- JSON and tensors ---------------------------------------------------------------------------


def test_json_bytes_depend_on_the_content_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "é": [2]})
    write_json(tmp_path / "b", {"é": [2], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_json(tmp_path / "a") == {"x": 1, "é": [2]}


def test_tensors_and_config_come_back_and_their_bytes_do_not_depend_on_order(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 4), "a": torch.arange(5)}
    write_tensors(tmp_path / "one", tensors, {"y": [1], "x": 2})
    write_tensors(tmp_path / "two", dict(reversed(tensors.items())), {"x": 2, "y": [1]})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found = read_tensors(tmp_path / "one")
    assert set(found) == {"a", "b"}
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    assert read_config(tmp_path / "one") == {"x": 2, "y": [1]}


def test_transposed_tensors_are_written_as_they_read(tmp_path: Path) -> None:
    tensor = torch.randn(3, 4).T
    write_tensors(tmp_path / "a", {"a": tensor})
    assert torch.equal(read_tensors(tmp_path / "a")["a"], tensor)


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b[:4], lambda b: b"", lambda b: b"\xff" * 64])
def test_damaged_tensors_are_one_line_that_names_the_file(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.randn(100)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError) as error:
        read_tensors(path)
    assert str(error.value).startswith(f"{path}: not a readable safetensors file")
    assert "\n" not in str(error.value)


def test_absent_tensors_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a.safetensors: no such file"):
        read_tensors(tmp_path / "a.safetensors")


def test_bytes_that_are_no_text_are_not_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "a.json")


# --- a full disk --------------------------------------------------------------------------------


def test_full_disk_while_writing_tensors_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safetensors.torch.save_file", disk_full)

    def main() -> None:
        with new_directory(tmp_path / "out") as folder:
            (folder / "written before").write_text("x")
            write_tensors(folder / "a.safetensors", {"a": torch.zeros(3)})

    with pytest.raises(SystemExit, match="the disk is full") as end:
        run(main)
    assert "\n" not in str(end.value.code)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not FULL.exists() or not os.access(FULL, os.W_OK), reason="no /dev/full here")
def test_real_full_device_ends_a_stage_with_one_line(tmp_path: Path) -> None:
    def stage() -> None:
        with new_directory(tmp_path / "out") as folder:
            (folder / "a.json").symlink_to(FULL)
            write_json(folder / "a.json", {"a": 1})

    with pytest.raises(SystemExit) as end:
        run(stage)
    assert "the disk is full" in str(end.value.code)
    assert list(tmp_path.iterdir()) == []
