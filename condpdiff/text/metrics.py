"""Metrics of text tasks, in percent: scikit-learn's and SciPy's."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def score(predictions: np.ndarray, references: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Metrics of one set of predictions [V] against references [V], in percent."""
    return {name: 100.0 * float(_METRICS[name](predictions, references)) for name in names}


def constant_prediction(labels: np.ndarray, kind: str) -> float:
    """The majority class of the training labels, or their mean (regression)."""
    if kind == "regression":
        return float(np.mean(labels))
    values, counts = np.unique(labels, return_counts=True)
    return float(values[np.argmax(counts)])


def _accuracy(p: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(p == y))


def _f1(p: np.ndarray, y: np.ndarray) -> float:
    from sklearn.metrics import f1_score  # a second, which scoring by losses need not wait for

    return f1_score(y, p, average="binary" if set(np.unique(y)) | set(np.unique(p)) <= {0, 1} else "macro")


def _matthews(p: np.ndarray, y: np.ndarray) -> float:
    from sklearn.metrics import matthews_corrcoef

    return matthews_corrcoef(y, p)


def _pearson(p: np.ndarray, y: np.ndarray) -> float:
    from scipy.stats import pearsonr

    return _correlation(pearsonr, p, y)


def _spearman(p: np.ndarray, y: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return _correlation(spearmanr, p, y)


def _correlation(of: Callable[..., Any], p: np.ndarray, y: np.ndarray) -> float:
    """0 with a constant, where it is undefined: a constant has learned nothing."""
    return 0.0 if np.ptp(p) == 0 or np.ptp(y) == 0 else of(p, y).statistic


_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
