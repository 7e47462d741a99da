"""Rows on disk answer as a tensor does, a file written in parts is safetensors' own, and bad files are one line."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from condpdiff.common import matrices as module
from condpdiff.common.errors import UserError
from condpdiff.common.files import write_tensors
from condpdiff.common.matrices import Joined, Resident, RowFile, Rows, as_rows, row_writer, whole

N, K = 23, 37


def matrix(seed: int = 0, count: int = N) -> Tensor:
    return torch.randn(count, K, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 5 rows."""
    monkeypatch.setattr(module, "PART_BYTES", 5 * 4 * K + 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """`w` lies between other tensors, and a config stands in the header."""
    others = {"a": torch.arange(5), "z": torch.ones(3), "d": torch.zeros(2, 2).double(), "v": torch.zeros(4)}
    write_tensors(tmp_path / "w.safetensors", {"w": matrix(), **others}, {"task": "é"})
    return tmp_path / "w.safetensors"


@pytest.fixture(params=["resident", "file", "last rows of a file", "joined"])
def case(request: pytest.FixtureRequest, path: Path) -> tuple[Rows, Tensor]:
    """Rows of every kind, and the tensor that they are."""
    if request.param == "joined":
        members = [RowFile(path, "w", last=3), Resident(matrix(1, 9)), RowFile(path, "w")]
        return Joined(members), torch.cat([matrix()[-3:], matrix(1, 9), matrix()])
    if request.param == "last rows of a file":
        return RowFile(path, "w", last=8), matrix()[-8:]
    return Resident(matrix()) if request.param == "resident" else RowFile(path, "w"), matrix()


def test_rows_are_taken_by_number_in_any_order_and_more_than_once(case: tuple[Rows, Tensor]) -> None:
    rows, expected = case
    picked = torch.tensor([len(expected) - 1, 0, 5, 5, 2])
    assert rows.shape == tuple(expected.shape)
    assert torch.equal(rows.take(picked), expected[picked])
    assert torch.equal(whole(rows), expected)
    assert rows.take(torch.tensor([], dtype=torch.int64)).shape == (0, K)


def test_columns_are_taken_of_chosen_rows(case: tuple[Rows, Tensor]) -> None:
    rows, expected = case
    picked = torch.tensor([6, 1, 7])
    for start, stop in ((0, K), (3, 4), (11, K)):
        assert torch.equal(rows.columns(picked, start, stop), expected[picked, start:stop])


def test_parts_are_all_rows_in_order_and_bounded(case: tuple[Rows, Tensor]) -> None:
    rows, expected = case
    parts = list(rows.parts())
    assert torch.equal(torch.cat(parts), expected)
    assert max(len(part) for part in parts) == 5


def test_a_row_larger_than_a_part_is_a_part_of_its_own(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_BYTES", 1)
    assert [len(part) for part in RowFile(path, "w").parts()] == [1] * N


def test_a_tensor_becomes_rows_and_rows_stay(path: Path) -> None:
    rows = RowFile(path, "w")
    assert as_rows(rows) is rows
    assert torch.equal(whole(as_rows(matrix())), matrix())


# --- files that are no rows ---------------------------------------------------------------------


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b[:4], lambda b: b"", lambda b: b"\xff" * 64])
def test_damaged_file_is_one_line(path: Path, damage: Any) -> None:
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError) as error:
        RowFile(path, "w")
    assert str(error.value).startswith(f"{path}: not a readable safetensors file")
    assert "\n" not in str(error.value)


def test_absent_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="w.safetensors: no such file"):
        RowFile(tmp_path / "w.safetensors", "w")


def test_absent_tensor_is_one_line(path: Path) -> None:
    with pytest.raises(UserError, match="w.safetensors: not a readable safetensors file .*other"):
        RowFile(path, "other")


@pytest.mark.parametrize(("name", "found"), [("d", r"F64 \[2, 2\]"), ("a", r"I64 \[5\]"), ("v", r"F32 \[4\]")])
def test_tensor_that_is_no_float32_matrix_is_one_line(path: Path, name: str, found: str) -> None:
    with pytest.raises(UserError, match=rf"w.safetensors: {name}: found {found}, allowed: F32 \[rows, weights\]"):
        RowFile(path, name)


def test_file_that_shrinks_while_it_is_read_is_one_line(path: Path) -> None:
    rows = RowFile(path, "w")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match="it ends early"):
        whole(rows)


# --- writing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4, N])
def test_bytes_written_in_parts_are_those_of_safetensors(tmp_path: Path, count: int) -> None:
    w = matrix(count=count)
    save_file({"w": w}, tmp_path / "expected")
    with row_writer(tmp_path / "found", "w", (count, K)) as write:
        for part in w.split(3):
            write(part)
    assert (tmp_path / "found").read_bytes() == (tmp_path / "expected").read_bytes()
    assert (tmp_path / "found").stat().st_mode & 0o777 == 0o644


def test_transposed_part_is_written_as_it_reads(tmp_path: Path) -> None:
    with row_writer(tmp_path / "w", "w", (N, K)) as write:
        write(matrix().T.contiguous().T)
    assert torch.equal(whole(RowFile(tmp_path / "w", "w")), matrix())


@pytest.mark.parametrize("count", [N - 1, N + 1])
def test_another_number_of_rows_than_told_fails(tmp_path: Path, count: int) -> None:
    with pytest.raises(ValueError, match="w: "), row_writer(tmp_path / "w", "w", (N, K)) as write:
        write(matrix(count=count))


@pytest.mark.parametrize("part", [torch.zeros(N, K - 1), torch.zeros(N, K).double(), torch.zeros(N * K)])
def test_part_of_another_width_or_type_fails(tmp_path: Path, part: Tensor) -> None:
    with pytest.raises(ValueError, match="a part of"), row_writer(tmp_path / "w", "w", (N, K)) as write:
        write(part)
