"""Do the generated weights make the same mistakes as a checkpoint? p-diff's measure of novelty, for classification."""

import numpy as np

from condpdiff.report.tables import Evaluation, candidates


def wrong_overlaps(e: Evaluation) -> np.ndarray:
    """Each candidate's largest IoU of wrong predictions with any *other* scored checkpoint: [R].

    The novelty measure of p-diff: 1 means the same mistakes as some checkpoint. Classification only (else NaN); NaN
    also for a lone checkpoint, which there is no other to hold against.
    """
    if e.task.data.kind != "classification":
        return np.full(len(e.scores), np.nan)
    wrong = (e.predictions != e.labels).astype(np.float64)  # [R, V]
    zoo = candidates(e.scores, "original")
    both = wrong @ wrong[zoo].T  # [R, zoo]
    either = wrong.sum(1)[:, None] + wrong[zoo].sum(1)[None, :] - both
    iou = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    iou[zoo, np.arange(len(zoo))] = -1.0  # not with itself
    best = iou.max(axis=1)
    return np.where(best < 0, np.nan, best)


def wrong_overlap(e: Evaluation, arm: str) -> float:
    """Mean over an arm's candidates."""
    return float(wrong_overlaps(e)[candidates(e.scores, arm)].mean())
