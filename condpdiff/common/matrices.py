"""Checkpoints as the rows of a matrix that may be larger than memory: read in parts; their principal axes.

Files are read into a caller's buffer and never mapped: mapped pages count as the process's own memory.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from condpdiff.common.errors import UserError
from condpdiff.common.files import open_tensors

PART_BYTES = 64 * 2**20
FLOAT = 4
CLOSED_FORM_ROWS = 1024  # a Gram matrix of so many rows takes a second; more rows hardly turn its first axes
GROUP_BYTES = 32 * 2**20


class Rows(ABC):
    """A float32 matrix [N, K] on the CPU; a caller holds no more of it than it asks for."""

    shape: tuple[int, int]  # (N, K)

    @abstractmethod
    def columns(self, indices: Tensor, start: int, stop: int) -> Tensor:
        """Columns start..stop-1 of rows `indices` [n] int64 -> [n, stop - start]."""

    def take(self, indices: Tensor) -> Tensor:
        """Rows `indices` [n] int64 -> [n, K]."""
        return self.columns(indices, 0, self.shape[1])

    def parts(self) -> Iterator[Tensor]:
        """All rows in order, [n, K] at a time: about `PART_BYTES`, and at least a row."""
        size = max(1, PART_BYTES // (FLOAT * self.shape[1]))
        return (self.take(indices) for indices in torch.arange(self.shape[0]).split(size))


class Resident(Rows):
    """Rows that lie in memory as one tensor [N, K]."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.shape = tensor, (tensor.shape[0], tensor.shape[1])

    def columns(self, indices: Tensor, start: int, stop: int) -> Tensor:
        return self.tensor[:, start:stop][indices]


class RowFile(Rows):
    """The float32 matrix `name` of a safetensors file, or its last rows alone; `block`: of a tensor of three axes.
    A UserError if the file can't be read, or has no such matrix."""

    def __init__(self, path: Path, name: str, last: int | None = None, block: int | None = None) -> None:
        with open_tensors(path) as file:  # checks the header and the file's length; reads no weights
            found = file.get_slice(name)
            shape, dtype = found.get_shape(), found.get_dtype()
        axes = "[rows, weights]" if block is None else f"[more than {block}, rows, weights]"
        if dtype != "F32" or len(shape) != 2 + (block is not None) or (block or 0) >= shape[0]:
            raise UserError(f"{path}: {name}: found {dtype} {shape}, allowed: F32 {axes}")
        *_, rows, width = shape
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            begin = json.loads(file.read(length))[name]["data_offsets"][0]
        self.path = path
        self.shape = (rows if last is None else last, width)
        self._begin = 8 + length + begin + FLOAT * width * ((block or 0) * rows + rows - self.shape[0])

    def columns(self, indices: Tensor, start: int, stop: int) -> Tensor:
        out = torch.empty(len(indices), stop - start)
        consecutive = len(indices) > 1 and stop - start == self.shape[1] and bool((indices.diff() == 1).all())
        rows, firsts = (out.view(1, -1), indices[:1]) if consecutive else (out, indices)
        with self.path.open("rb") as file:
            for row, index in zip(rows.view(torch.uint8).numpy(), firsts.tolist(), strict=True):
                file.seek(self._begin + FLOAT * (index * self.shape[1] + start))
                if file.readinto(row.data) < len(row):
                    raise UserError(f"{self.path}: not a readable safetensors file (it ends early); run `dvc repro`")
        return out


class Joined(Rows):
    """The rows of several matrices of one width, one after the other."""

    def __init__(self, members: Sequence[Rows]) -> None:
        self.members = members
        self.shape = (sum(m.shape[0] for m in members), members[0].shape[1])

    def columns(self, indices: Tensor, start: int, stop: int) -> Tensor:
        out = torch.empty(len(indices), stop - start)
        first = 0
        for member in self.members:
            local = indices - first
            inside = ((local >= 0) & (local < member.shape[0])).nonzero().squeeze(1)
            if len(inside):
                out[inside] = member.columns(local[inside], start, stop)
            first += member.shape[0]
        return out

    def parts(self) -> Iterator[Tensor]:
        return (part for member in self.members for part in member.parts())


def as_rows(w: Rows | Tensor) -> Rows:
    """A tensor [N, K] as rows; rows as they are."""
    return Resident(w) if isinstance(w, Tensor) else w


def whole(rows: Rows) -> Tensor:
    """All rows in one tensor [N, K]."""
    return rows.take(torch.arange(rows.shape[0]))


@contextmanager
def row_writer(path: Path, name: str, shape: tuple[int, int]) -> Iterator[Callable[[Tensor], object]]:
    """Write a safetensors file of one matrix [N, K] in float32 parts [n, K], as safetensors' `save_file` would."""
    entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, FLOAT * shape[0] * shape[1]]}
    header = json.dumps({name: entry}, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        yield lambda part: file.write(part.contiguous().numpy().data)
    path.chmod(0o644)


# --- principal axes of few long rows, by a group of columns at a time ----------------------------


def principal_axes(centred: Tensor, count: int) -> Tensor:
    """Up to `count` principal axes [n, K] of centred rows [N, K], by the N x N Gram matrix (N is far below K)."""
    parts = (centred[:, columns] for columns in column_groups(centred.shape[1], len(centred)))
    axes = leading(gram_of(parts), count).T.to(centred.dtype) @ centred  # [n, K]
    return F.normalize(axes, dim=1)


def gram_of(parts: Iterable[Tensor]) -> Tensor:
    """[N, N] float64: inner products of rows that come a group of columns at a time."""
    # In float64: float32 rounding would pass for a last axis, oblique to the others.
    return sum((p @ p.T for p in (part.double() for part in parts)), torch.zeros((), dtype=torch.float64))


def leading(gram: Tensor, count: int) -> Tensor:
    """Up to `count` eigenvectors [N, n] of a Gram matrix, largest first, that are more than rounding."""
    values, vectors = torch.linalg.eigh(gram)
    keep = values.flip(0)[:count] > values[-1] * 1e-9
    return vectors.flip(1)[:, :count][:, keep]


def evenly_spaced(total: int, count: int) -> Tensor:
    """Up to `count` indices spread over 0..total-1, the last one included."""
    return torch.linspace(total - 1, 0, min(count, total)).round().long().flip(0)


def column_groups(width: int, rows: int, step: int = 1) -> Iterator[slice]:
    """Columns 0..width-1 in groups of whole `step`s, of about `GROUP_BYTES` for so many rows of float32."""
    size = max(1, GROUP_BYTES // (FLOAT * rows * step)) * step
    return (slice(start, min(start + size, width)) for start in range(0, width, size))
