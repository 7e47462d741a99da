"""A task's rows in splits `train`, `held_out` and `validation`: no row in two of them, the same ones each time."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.common.files import new_directory, write_json
from condpdiff.common.task import Data

DESCRIPTION = "description.json"  # what a task's conditions are made of
SPLITS = ("train", "validation")  # what a source gives; `held_out` is taken out of `train`
Keys = Callable[[pd.DataFrame], pd.Series]  # what makes two rows the same one, to a domain


def subsample(frames: Mapping[str, pd.DataFrame], limits: Data, keys: Keys, name: str) -> dict[str, pd.DataFrame]:
    """Rows of `train` that `validation` lacks, and at most as many of each split as params.yaml allows.

    Rows stay in their order; a larger limit keeps the rows of a smaller one. A public validation set stays whole.
    """
    in_both = keys(frames["train"]).isin(set(keys(frames["validation"])))
    if count := int(in_both.sum()):
        print(f"{name}: dropped {count} of train that validation has, too", file=sys.stderr)
    found = {}
    for index, split in enumerate(SPLITS):
        frame = frames[split][~in_both] if split == "train" else frames[split]
        order = np.random.default_rng([limits.seed, index]).permutation(len(frame))
        found[split] = frame.iloc[np.sort(order[: getattr(limits, f"max_{split}")])].reset_index(drop=True)
    return found


def hold_out(train: pd.DataFrame, limits: Data, keys: Keys, place: str) -> dict[str, pd.DataFrame]:
    """`train`, read from `place`, without `limits.held_out` of its rows, and these as `held_out`, in random order.
    A larger number keeps the first of a smaller one. A row that stands twice is not trained on either.
    Raises UserError: that would be more than half of them.
    """
    if not limits.held_out:
        return {"train": train}
    if limits.held_out > len(train) // 2:
        allowed = f"at most half of the {len(train)} training rows of {place}"
        raise UserError(f"params.yaml: data.held_out: found {limits.held_out}, allowed: {allowed}")
    order = np.random.default_rng([limits.seed, len(SPLITS)]).permutation(len(train))
    held_out = train.iloc[order[: limits.held_out]]
    kept = train.drop(held_out.index)
    kept = kept[~keys(kept).isin(set(keys(held_out)))]
    return {"train": kept.reset_index(drop=True), "held_out": held_out.reset_index(drop=True)}


def save_splits(out: Path, frames: Mapping[str, pd.DataFrame], description: Mapping[str, Any]) -> None:
    """Write each split as a parquet file, and `description.json`, to `out`; whole or not at all."""
    with new_directory(out) as folder:
        for split, frame in frames.items():
            frame.to_parquet(folder / f"{split}.parquet", index=False)
        write_json(folder / DESCRIPTION, description)
