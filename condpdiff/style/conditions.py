"""What tells the generator about a style: draws of its pictures."""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from condpdiff.common.files import read_json, read_rows
from condpdiff.common.splits import DESCRIPTION
from condpdiff.style.images import decoded
from condpdiff.style.task import TaskCondition

_rows = cache(read_rows)


def inputs(folder: Path, kind: str) -> list[np.ndarray]:
    """The draws uint8 [images, H, W, 3] of the member of a folder `<family>/<q>`; none if the kind reads no images."""
    if kind != "style_images":
        return []
    told = pictures_of(folder.parent, int(folder.name))
    return [told[draw] for draw in read_json(folder.parent / DESCRIPTION)[kind][int(folder.name)]]


def pictures_of(folder: Path, member: int, split: str = "held_out") -> np.ndarray:
    """The pictures uint8 [n, H, W, 3] of one member of a prepared family; of `held_out` those that tell of it."""
    return decoded(rows_of(folder, member, split))


def rows_of(folder: Path, member: int, split: str) -> pd.DataFrame:
    """A split's rows of one member of a prepared family."""
    rows = _rows(folder, split)
    return rows[rows["member"] == member]


def draws_of(condition: TaskCondition, pictures: int, member: int) -> list[list[int]]:
    """Of each of a member's draws the positions of its pictures; all of them where there are no more."""
    rng = np.random.default_rng([condition.seed, member])
    found = [rng.permutation(pictures)[: condition.images] for _ in range(condition.draws)]
    return [sorted(draw.tolist()) for draw in found]


def shown(draw: np.ndarray) -> str:
    """A draw in words; the digest tells one from another."""
    (count, height, width, _), digest = draw.shape, hashlib.sha256(draw.tobytes()).hexdigest()[:12]
    return f"{count} style images of {width} x {height} pixels (SHA-256 {digest})"
