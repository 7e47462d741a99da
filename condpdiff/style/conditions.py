"""What tells the generator about a style: draws of its training images."""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_json
from condpdiff.style.task import Task

DESCRIPTION = "description.json"


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
    """The draws of a prepared style, each uint8 [images, H, W, 3]; none for kinds that read no image."""
    draws = read_json(folder / DESCRIPTION).get(kind, [])
    if not draws:
        return []
    train = pd.read_parquet(folder / "train.parquet")["image"]
    return [np.stack([np.asarray(Image.open(BytesIO(train[i]))) for i in draw]) for draw in draws]


def shown(draw: np.ndarray) -> str:
    """A draw in words; the digest tells one from another."""
    count, height, width, _ = draw.shape
    return (
        f"{count} style images of {width} x {height} pixels (SHA-256 {hashlib.sha256(draw.tobytes()).hexdigest()[:12]})"
    )
