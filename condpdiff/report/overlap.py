"""Do the generated weights make the same mistakes as a checkpoint? p-diff's measure of novelty, for classification."""

import numpy as np

from condpdiff.report.tables import Evaluation, candidates


def wrong_overlap(e: Evaluation, arm: str) -> float:
    """Mean over an arm's candidates of the largest IoU of wrong predictions with any *other* scored checkpoint.

    The novelty measure of p-diff: 1 means the same mistakes as some checkpoint. Classification only (else NaN).
    """
    if e.task.data.kind != "classification":
        return float("nan")
    wrong = e.predictions != e.labels  # [R, V]
    mine, zoo = candidates(e.scores, arm), candidates(e.scores, "original")
    a, b = wrong[mine].astype(np.float64), wrong[zoo].astype(np.float64)
    both = a @ b.T  # [mine, zoo]
    either = a.sum(1)[:, None] + b.sum(1)[None, :] - both
    iou = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    iou[mine[:, None] == zoo[None, :]] = -1.0  # not with itself
    best = iou.max(axis=1)
    return float(best.mean()) if (best >= 0).all() else float("nan")
