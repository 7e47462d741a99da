"""The performance of checkpoints: each one's loss on held-out rows, and p in 0..1 from it.

G.pt (arXiv 2209.12892) asks its generator for a loss; here p is asked for beside the task's condition. The rows are
training rows that fine-tuning never saw, since the loss on rows that it did see only tells how often it saw them.
Validation rows play no part, and candidates are selected on other rows than these.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from condpdiff.common.errors import UserError
from condpdiff.zoo.settings import Performance

if TYPE_CHECKING:
    from torch import Tensor

    from condpdiff.text.score import Scorer


def loss_rows(held_out: pd.DataFrame, settings: Performance) -> pd.DataFrame:
    """The held-out rows that rate checkpoints: the first ones; they lie in random order."""
    return held_out.iloc[: settings.rows]


def select_rows(held_out: pd.DataFrame, settings: Performance, count: int) -> pd.DataFrame:
    """The held-out rows that candidates are selected on: those after the ones that rate checkpoints."""
    return held_out.iloc[settings.rows : settings.rows + count].reset_index(drop=True)


def rated(count: int, every: int) -> list[int]:
    """Which of so many checkpoints are rated: every so many-th, and the last."""
    return sorted({*range(0, count, every), count - 1})


def rate(scorer: "Scorer", theta: "Tensor", every: int, what: str) -> pd.DataFrame:
    """Columns checkpoint, loss, rated (0 or 1) of theta [N, K]: the mean loss on the scorer's rows called `loss`, or
    between rated checkpoints what is interpolated linearly."""
    checkpoints, losses = rated(len(theta), every), []
    for checkpoint in tqdm(checkpoints, desc=what, unit="checkpoint"):
        scorer.merge(theta[checkpoint])
        losses.append(float(scorer.losses("loss").mean()))
    every_one = np.arange(len(theta))
    loss, is_rated = np.interp(every_one, checkpoints, losses), np.isin(every_one, checkpoints)
    return pd.DataFrame({"checkpoint": every_one, "loss": loss, "rated": is_rated.astype(int)})


def performance_of(loss: np.ndarray, kind: str) -> np.ndarray:
    """loss [N] -> p [N] float32 in 0..1, 1 the best: by `rank` evenly spaced, equal ones sharing; by `loss` linear."""
    if len(loss) == 1 or (kind == "loss" and loss.max() == loss.min()):
        return np.ones(len(loss), np.float32)  # the only one is the best
    if kind == "loss":
        return ((loss.max() - loss) / (loss.max() - loss.min())).astype(np.float32)
    return ((pd.Series(-loss).rank().to_numpy() - 1) / (len(loss) - 1)).astype(np.float32)  # rank 1 is the worst


def load_performance(folder: Path, counts: dict[str, int], kind: str) -> dict[str, np.ndarray] | None:
    """p [N] of the last N = `counts[task]` checkpoints of every task, None for `kind: none`; a UserError where a table
    can't be read or has fewer checkpoints."""
    if kind == "none":
        return None
    found = {}
    for task, n in counts.items():
        path = folder / f"{task}.csv"
        try:
            frame = pd.read_csv(path)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; run `dvc repro` from score-zoo") from None
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not a readable table ({error})") from None
        if not {"checkpoint", "loss"} <= set(frame.columns) or frame.isna().any(axis=None):
            columns = ", ".join(frame.columns)
            raise UserError(f"{path}: found columns {columns}, needed: checkpoint, loss, all of them numbers")
        if len(frame) < n:
            raise UserError(f"{path}: found {len(frame)} checkpoints, needed: {n}; run `dvc repro` from score-zoo")
        found[task] = performance_of(frame["loss"].to_numpy(dtype=np.float64)[-n:], kind)
    return found
