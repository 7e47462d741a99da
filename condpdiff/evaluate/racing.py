"""Selection by racing: an arm's candidates see the select rows bit by bit, and the worse half drops out each time.

Successive halving (Jamieson and Talwalkar, arXiv 1502.07943) with a confidence rule, as in races (Maron and Moore,
1994): candidates of an arm score alike, so of the worse half those stay that the rows seen can't tell from the leader.
A few rows rank candidates by their mean loss far better than by hits, of which there are few different counts.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm import tqdm

if TYPE_CHECKING:  # the domain's own
    from condpdiff.text.score import Scorer

PREFIXES = (1 / 8, 1 / 4, 1 / 2, 1)  # shares of the rows seen by the end of each round
STAY = 3 / 4
"""Of a round's candidates at most this share goes on, however close: of many, 43 % of the passes are saved at least."""


def parts(split: str, rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows that each round adds, as splits of their own: a Scorer batches them by length within a part.

    The rows must stand in random order already, as `DataFrame.sample` leaves them. The first round sees two at least,
    as one has no standard error.
    """
    ends = sorted({min(len(rows), max(2, round(share * len(rows)))) for share in PREFIXES})
    return {f"{split} {start}:{end}": rows[start:end] for start, end in pairwise([0, *ends])}


def race(scorer: "Scorer", vectors: Tensor, split: str, z: float, what: str) -> list[np.ndarray]:
    """Race the candidates `vectors` [M, K] over the scorer's `parts` of a split.

    Returns:
        What the model put out for the rows that each candidate saw: [rows, ...]; the finalists saw all of them.
    """
    losses: list[list[np.ndarray]] = [[] for _ in vectors]
    outputs: list[list[np.ndarray]] = [[] for _ in vectors]
    racing = list(range(len(vectors)))
    rounds = [name for name in scorer.rows if name.startswith(f"{split} ")]
    for name in rounds:
        for i in tqdm(racing, desc=f"{what}, {name}", unit="candidate", leave=False):
            scorer.merge(vectors[i])
            outputs[i].append(scorer.outputs(name))
            losses[i].append(scorer.losses_of(outputs[i][-1], name))
        if name != rounds[-1]:
            stay = survivors(np.stack([np.concatenate(losses[i]) for i in racing]), z)
            racing = [racing[k] for k in stay]
    return [np.concatenate(seen) for seen in outputs]


def survivors(losses: np.ndarray, z: float) -> np.ndarray:
    """Which of the candidates go on, lowest number first.

    Args:
        losses: [M, rows] of all rows seen, at least two; losses that are not numbers count as the worst.

    Returns:
        Indices of the better half (rounded up), and of those in the worse half whose mean paired difference to the
        leader is within z standard errors of it; the best `STAY` of all at most (rounded up).
    """
    losses = np.where(np.isfinite(losses), losses, np.inf)
    order = np.argsort(losses.mean(1), kind="stable")
    half, most = -(-len(order) // 2), int(np.ceil(STAY * len(order)))
    worse = [i for i in order[half:most] if np.isfinite(losses[i]).all()]
    off = losses[worse] - losses[order[0]]
    close = off.mean(1) <= z * off.std(1, ddof=1) / np.sqrt(off.shape[1])
    return np.sort([*order[:half], *np.array(worse, dtype=int)[close]]).astype(int)
