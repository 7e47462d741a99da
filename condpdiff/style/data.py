"""A style's images, made ready: columns `caption`, `image`, splits `train`, `held_out` and `validation`."""

import sys
from pathlib import Path

import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.common.splits import SPLITS, hold_out, most, save_splits, subsample
from condpdiff.common.task import TASKS, Data
from condpdiff.style.conditions import describe
from condpdiff.style.families.data import prepare_family
from condpdiff.style.sources import read_source
from condpdiff.style.task import Task, TaskData

LEAST = 2
"""Images that a Fréchet distance needs at least: a covariance of fewer is none."""
FEW = 64
"""Validation images below which a distance says little."""


def prepare_data(name: str, task: Task, limits: Data, out: Path) -> None:
    """Write a style's splits as parquet files, and which images its conditions are drawn from, to `out`; or a family's.

    Raises:
        UserError: as `prepare`; or there are fewer training images than a draw of the condition asks for.
    """
    if task.members is not None:
        prepare_family(name, task, limits, out)
        return
    frames = prepare(task.data, name, limits)
    save_splits(out, frames, describe(task, frames["train"], f"{TASKS / name}.yaml"))
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
    where = f"{TASKS / name}.yaml"
    pictures = read_source(data, where, most(limits), limits.seed)
    frames = {split: pd.DataFrame(pictures[split], columns=["caption", "image"]) for split in SPLITS}
    frames = subsample(frames, limits, _keys, name)
    for split in SPLITS:
        if len(frames[split]) < LEAST:
            raise UserError(
                f"{where}: data.source: found {len(frames[split])} images for {split} (params.yaml: data.max_{split} "
                f"is {most(limits)[split]}), allowed: at least {LEAST}"
            )
    if len(frames["validation"]) < FEW:
        print(
            f"warning: {name}: {len(frames['validation'])} validation images; a Fréchet distance to fewer than {FEW} "
            "is mostly chance (the report's floor shows how much)",
            file=sys.stderr,
        )
    return frames | hold_out(frames["train"], limits, _keys, where)


def _keys(frame: pd.DataFrame) -> pd.Series:
    return frame["image"]


def _summary(frame: pd.DataFrame) -> str:
    return f"{len(frame)} images ({frame['caption'].nunique()} different captions)"
