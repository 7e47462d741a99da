"""Rows on disk answer as a tensor does, a file written in parts is safetensors' own, and bad files are one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from condpdiff.common import matrices as module
from condpdiff.common.errors import UserError
from condpdiff.common.files import write_tensors
from condpdiff.common.matrices import Joined, Resident, RowFile, Rows, as_rows, row_writer, whole
from tests.tensors import random

N, K = 23, 37


def matrix(seed: int = 0, count: int = N) -> Tensor:
    return random(count, K, seed=seed)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 5 rows."""
    monkeypatch.setattr(module, "PART_BYTES", 5 * 4 * K + 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """`w` lies between other tensors, and a config stands in the header."""
    others = {"a": torch.arange(5), "z": torch.ones(3), "d": torch.zeros(2, 2).double(), "v": torch.zeros(4)}
    tensors = {"w": matrix(), "b": torch.stack([matrix(), matrix(2)]), **others}
    write_tensors(tmp_path / "w.safetensors", tensors, {"task": "é"})
    return tmp_path / "w.safetensors"


CASES: dict[str, Callable[[Path], tuple[Rows, Tensor]]] = {
    "resident": lambda path: (Resident(matrix()), matrix()),
    "file": lambda path: (RowFile(path, "w"), matrix()),
    "last rows of a file": lambda path: (RowFile(path, "w", last=8), matrix()[-8:]),
    "block": lambda path: (RowFile(path, "b", block=1), matrix(2)),
    "last rows of a block": lambda path: (RowFile(path, "b", 8, block=1), matrix(2)[-8:]),
    "joined": lambda path: (
        Joined([RowFile(path, "w", last=3), Resident(matrix(1, 9)), RowFile(path, "w")]),
        torch.cat([matrix()[-3:], matrix(1, 9), matrix()]),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_are_taken_by_number_and_parts_are_all_in_order(
    case: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, expected = CASES[case](path)
    picked = torch.tensor([len(expected) - 1, 0, 5, 5, 2])
    assert rows.shape == tuple(expected.shape) and as_rows(rows) is rows
    assert torch.equal(whole(rows), expected) and torch.equal(whole(as_rows(expected)), expected)
    assert rows.take(torch.tensor([], dtype=torch.int64)).shape == (0, K)
    for start, stop in ((0, K), (3, 4), (11, K)):
        assert torch.equal(rows.columns(picked, start, stop), expected[picked, start:stop])
    parts = list(rows.parts())
    assert torch.equal(torch.cat(parts), expected)
    assert max(len(part) for part in parts) == 5
    monkeypatch.setattr(module, "PART_BYTES", 1)  # a row larger than a part is a part of its own
    assert {len(part) for part in rows.parts()} == {1}


@pytest.mark.parametrize(
    ("name", "block", "found"),
    [
        ("d", None, r"d: found F64 \[2, 2\], allowed: F32 \[rows, weights\]"),
        ("v", None, r"v: found F32 \[4\], allowed: F32 \[rows, weights\]"),
        ("b", None, rf"b: found F32 \[2, {N}, {K}\], allowed: F32 \[rows, weights\]"),
        ("b", 2, r"b: found F32 .*, allowed: F32 \[more than 2, rows, weights\]"),
        ("w", 0, r"w: found F32 .*, allowed: F32 \[more than 0, rows, weights\]"),
        ("other", None, "not a readable safetensors file .*other"),
    ],
)
def test_tensor_that_is_no_float32_matrix_is_one_line(path: Path, name: str, block: int | None, found: str) -> None:
    with pytest.raises(UserError, match=f"w.safetensors: {found}"):
        RowFile(path, name, block=block)


@pytest.mark.parametrize("count", [1, N])
def test_bytes_written_in_parts_are_those_of_safetensors(tmp_path: Path, count: int) -> None:
    w = matrix(count=count)
    save_file({"w": w}, tmp_path / "expected")
    with row_writer(tmp_path / "found", "w", (count, K)) as write:
        for part in w.split(3):
            write(part.T.contiguous().T)  # as it reads, not as it lies
    assert (tmp_path / "found").read_bytes() == (tmp_path / "expected").read_bytes()
    assert (tmp_path / "found").stat().st_mode & 0o777 == 0o644
