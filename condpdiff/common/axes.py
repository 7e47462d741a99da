"""Principal axes of few long rows, by a group of columns at a time."""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from condpdiff.common.matrices import FLOAT

CLOSED_FORM_ROWS = 1024  # a Gram matrix of so many rows takes a second; more rows hardly turn its first axes
GROUP_BYTES = 32 * 2**20


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
