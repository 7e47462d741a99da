"""Metrics on resampled validation rows, and paired intervals from them.

A resample is how often each row is drawn, counts [B, V]; every metric is then a few matrix products, and that of
all-ones counts is the plain metric. In percent; undefined correlations count as 0.
"""

from collections.abc import Sequence

import numpy as np

from condpdiff.report.arms import OURS
from condpdiff.report.evaluation import Comparison, Difference, Evaluation, candidates, selected

RESAMPLES = 2000


def compare(evaluations: Sequence[Evaluation], arm: str, seed: int, means: bool = False) -> Comparison:
    """Resample each task's validation rows RESAMPLES times; both arms are scored on the same resamples.

    Task i draws rows from seed (seed, i), so every comparison of a report sees the same resamples of them. `means` are
    of all candidates, in place of the selected ones; each arm's candidates are drawn anew too, or the interval would
    hold for these very draws alone.
    """
    tasks, draws = {}, []
    for i, e in enumerate(evaluations):
        v = len(e.labels)
        counts = np.random.default_rng([seed, i]).multinomial(v, np.full(v, 1 / v), size=RESAMPLES)  # [B, V]
        counts = np.concatenate([np.ones((1, v)), counts])  # row 0: the rows as they are
        sides = []
        for side, name in enumerate((OURS, arm)):
            rows = candidates(e.scores, name).index if means else [selected(e.scores, name)]
            each = [metric(e.metric, e.predictions[r], e.labels, counts, e.task.data.f1_classes) for r in rows]
            scores = np.stack(each)  # [C, 1 + B]
            drawn = np.random.default_rng([seed, i, side]).integers(len(scores), size=(len(scores), RESAMPLES))
            sides.append(np.r_[scores[:, 0].mean(), np.take_along_axis(scores[:, 1:], drawn, axis=0).mean(0)])
        draws.append(sides[0] - sides[1])  # [1 + B]
        tasks[e.name] = _interval(draws[-1])
    return Comparison(arm, tasks, _interval(np.mean(draws, axis=0)))


def metric(name: str, p: np.ndarray, y: np.ndarray, counts: np.ndarray, f1_classes: Sequence[int]) -> np.ndarray:
    """[B], of predictions and labels [V]; F1 is the mean over `f1_classes`, as in `text.metrics`."""
    match name:
        case "accuracy":
            return 100 * (counts @ (p == y)) / counts.sum(1)
        case "log_likelihood":
            return -100 * (counts @ p) / counts.sum(1)
        case "pearson":
            return _pearson(p, y, counts)
        case "spearman":
            return _pearson(_ranks(p, counts), _ranks(y, counts), counts)
    p, y = p.astype(int), y.astype(int)
    c = max(p.max(), y.max()) + 1
    m = (counts @ np.eye(c * c)[y * c + p]).reshape(-1, c, c)  # [B, true class, predicted class]
    true, said = m.sum(2), m.sum(1)
    if name == "f1":
        each = 2 * np.diagonal(m, axis1=1, axis2=2) / np.maximum(said + true, 1)  # [B, classes that occur]
        return 100 * each[:, [k for k in f1_classes if k < c]].sum(1) / len(f1_classes)
    n, hits = m.sum((1, 2)), np.trace(m, axis1=1, axis2=2)  # Matthews
    below = np.sqrt((n**2 - (said**2).sum(1)) * (n**2 - (true**2).sum(1)))
    return 100 * np.divide(hits * n - (true * said).sum(1), below, out=np.zeros(len(n)), where=below > 0)


def _interval(difference: np.ndarray) -> Difference:
    return Difference(float(difference[0]), *map(float, np.percentile(difference[1:], [2.5, 97.5])))


def _pearson(p: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """p and y are [V], or [B, V] where they differ by resample."""
    weight = counts / counts.sum(1, keepdims=True)
    p = p - (weight * p).sum(1, keepdims=True)
    y = y - (weight * y).sum(1, keepdims=True)
    below = np.sqrt((weight * p**2).sum(1) * (weight * y**2).sum(1))
    return 100 * np.divide((weight * p * y).sum(1), below, out=np.zeros(len(weight)), where=below > 1e-12)


def _ranks(x: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean ranks within each resample, [B, V]: a value drawn w times after c smaller ones has rank c + (w + 1) / 2."""
    order = np.argsort(x, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(x[order]) > 0])
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)  # [B, different values]
    ranks = np.cumsum(drawn, axis=1) - drawn + (drawn + 1) / 2
    return ranks[:, np.unique(x, return_inverse=True)[1]]
