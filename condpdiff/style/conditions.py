"""What tells the generator about a style: draws of its training images."""

import hashlib
from collections.abc import Iterable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_json, read_rows
from condpdiff.common.splits import DESCRIPTION
from condpdiff.style.task import Task, TaskCondition

DRAWS = 3
"""Of images of noise."""


def describe(task: Task, train: pd.DataFrame, where: str) -> dict[str, Any]:
    """The style in words, and of each draw the positions of its images in `train`.

    Raises:
        UserError: a draw asks for more images than there are; `where` is the task's file.
    """
    condition = task.condition
    if condition.images > len(train):
        raise UserError(
            f"{where}: condition.images: found {condition.images}, allowed: at most the {len(train)} training images"
        )
    rng = np.random.default_rng(condition.seed)
    draws = [rng.permutation(len(train))[: condition.images] for _ in range(condition.draws)]
    return {"description": condition.description, "style_images": [sorted(draw.tolist()) for draw in draws]}


def inputs(folder: Path, kind: str) -> list[np.ndarray]:
    """The draws of a prepared style, each uint8 [images, H, W, 3]; none for kinds that read no image.

    Args:
        folder: of a style, or `<family>/<q>` of a member of a family, whose draws are of its own pictures of other
            content.
    """
    if kind != "style_images":
        return []
    if not folder.is_dir():
        told = pictures_of(folder.parent, int(folder.name))
        draws = read_json(folder.parent / DESCRIPTION)[kind][int(folder.name)]
        return [told[draw] for draw in draws]
    draws = read_json(folder / DESCRIPTION).get(kind, [])
    if not draws:
        return []
    train = read_rows(folder, "train")["image"]
    return [_decoded(train[draw]) for draw in draws]


def pictures_of(folder: Path, member: int, split: str = "held_out") -> np.ndarray:
    """The pictures uint8 [n, H, W, 3] of one member of a prepared family; of `held_out` those that tell of it."""
    rows = _rows(folder, split)
    return _decoded(rows.loc[rows["member"] == member, "image"])


@cache
def _rows(folder: Path, split: str) -> pd.DataFrame:
    return read_rows(folder, split)


def draws_of(condition: TaskCondition, pictures: int, member: int) -> list[list[int]]:
    """Of each of a member's draws the positions of its pictures; all of them where there are no more."""
    rng = np.random.default_rng([condition.seed, member])
    found = [rng.permutation(pictures)[: condition.images] for _ in range(condition.draws)]
    return [sorted(draw.tolist()) for draw in found]


def _decoded(files: Iterable[bytes]) -> np.ndarray:
    """PNG files of one size -> uint8 [V, H, W, 3]."""
    return np.stack([np.asarray(Image.open(BytesIO(file))) for file in files])


def nonsense_inputs(task: Task, kind: str) -> list[np.ndarray]:
    """Draws of images of noise, uint8 [images, H, W, 3] each; none for kinds that read no image.

    Args:
        task: any of the run's; as many images a draw as it has, of its size.
    """
    if kind != "style_images":
        return []
    shape = (task.condition.images, task.data.size, task.data.size, 3)
    rng = np.random.default_rng(task.condition.seed)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(DRAWS)]


def shown(draw: np.ndarray) -> str:
    """A draw in words; the digest tells one from another."""
    count, height, width, _ = draw.shape
    return (
        f"{count} style images of {width} x {height} pixels (SHA-256 {hashlib.sha256(draw.tobytes()).hexdigest()[:12]})"
    )
