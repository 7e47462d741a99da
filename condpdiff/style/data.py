"""A style's images, made ready: columns `caption`, `image`, splits `train`, `held_out` and `validation`."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.common.files import new_directory, write_json
from condpdiff.common.task import TASKS, Data
from condpdiff.style.conditions import DESCRIPTION, describe
from condpdiff.style.sources import read_source
from condpdiff.style.task import Task, TaskData

SPLITS = ("train", "validation")
LEAST = 2
"""Images that a Fréchet distance needs at least: a covariance of fewer is none."""
FEW = 64
"""Validation images below which a distance says little."""


def prepare_data(name: str, task: Task, limits: Data, out: Path) -> None:
    """Write a style's splits as parquet files, and which images its conditions are drawn from, to `out`.

    Raises:
        UserError: as `prepare`; or there are fewer training images than a draw of the condition asks for.
    """
    frames = prepare(task.data, name, limits)
    description = describe(task, frames["train"], f"{TASKS / name}.yaml")
    with new_directory(out) as folder:
        for split, frame in frames.items():
            frame.to_parquet(folder / f"{split}.parquet", index=False)
        write_json(folder / DESCRIPTION, description)
    print(f"{name}: " + ", ".join(f"{split} {_summary(frame)}" for split, frame in frames.items()))


def prepare(data: TaskData, name: str, limits: Data) -> dict[str, pd.DataFrame]:
    """Read and subsample a style's images; the same input gives the same bytes in the same order.

    Returns:
        `train`, `held_out` (training images set aside, in random order) and `validation`, each with columns
        `caption` (str) and `image` (bytes of a PNG: RGB of 8 bits, size x size).

    Raises:
        UserError: the source or an image is wrong, or there are too few; names the file or key, what was found, what
            is allowed.
    """
    most = {"train": limits.max_train, "validation": limits.max_validation}
    pictures = read_source(data, f"{TASKS / name}.yaml", most, limits.seed)
    frames = {split: pd.DataFrame(pictures[split], columns=["caption", "image"]) for split in SPLITS}
    in_both = frames["train"]["image"].isin(set(frames["validation"]["image"]))
    if in_both.any():
        print(f"{name}: dropped {in_both.sum()} images of train that are also in validation", file=sys.stderr)
        frames["train"] = frames["train"][~in_both]
    frames = {
        split: _subsample(frames[split], most[split], np.random.default_rng([limits.seed, index]))
        for index, split in enumerate(SPLITS)
    }
    for split in SPLITS:
        _check_count(frames[split], split, name, most[split])
    if len(frames["validation"]) < FEW:
        print(
            f"warning: {name}: {len(frames['validation'])} validation images; a Fréchet distance to fewer than {FEW} "
            "is mostly chance (the report's floor shows how much)",
            file=sys.stderr,
        )
    return frames | (_hold_out(frames["train"], limits, name) if limits.held_out else {})


def _subsample(frame: pd.DataFrame, limit: int, rng: np.random.Generator) -> pd.DataFrame:
    """At most `limit` images, in their old order; a larger limit keeps the images of a smaller one."""
    kept = np.sort(rng.permutation(len(frame))[:limit])
    return frame.iloc[kept].reset_index(drop=True)


def _hold_out(train: pd.DataFrame, limits: Data, name: str) -> dict[str, pd.DataFrame]:
    """Set `limits.held_out` training images aside, in random order; a larger number keeps those of a smaller one."""
    if limits.held_out > len(train) // 2:
        raise UserError(
            f"params.yaml: data.held_out: found {limits.held_out}, allowed: at most half of the {len(train)} training "
            f"images of {TASKS / name}.yaml"
        )
    order = np.random.default_rng([limits.seed, len(SPLITS)]).permutation(len(train))
    held_out = train.iloc[order[: limits.held_out]]
    kept = train.drop(held_out.index)
    kept = kept[~kept["image"].isin(set(held_out["image"]))]  # an image that stands twice is not trained on either
    return {"train": kept.reset_index(drop=True), "held_out": held_out.reset_index(drop=True)}


def _check_count(frame: pd.DataFrame, split: str, name: str, limit: int) -> None:
    if len(frame) < LEAST:
        raise UserError(
            f"{TASKS / name}.yaml: data.source: found {len(frame)} images for {split} (params.yaml: data.max_{split} "
            f"is {limit}), allowed: at least {LEAST}"
        )


def _summary(frame: pd.DataFrame) -> str:
    return f"{len(frame)} images ({frame['caption'].nunique()} different captions)"
