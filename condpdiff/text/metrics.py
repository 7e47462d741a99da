"""Metrics of text tasks, in percent: scikit-learn's and SciPy's; a log-likelihood is in hundredths of a nat."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def score(
    predictions: np.ndarray, references: np.ndarray, names: Sequence[str], f1_classes: Sequence[int] = (1,)
) -> dict[str, float]:
    """Metrics of one set of predictions [V] against references [V], in percent.

    Args:
        f1_classes: the classes whose F1 are averaged, whatever is predicted: candidates are compared by it.
    """
    found = {}
    for name in names:
        value = _f1(predictions, references, f1_classes) if name == "f1" else _METRICS[name](predictions, references)
        found[name] = 100.0 * float(value)
    return found


def constant_prediction(labels: np.ndarray, kind: str) -> float:
    """The majority class of the training labels, or their mean (regression)."""
    if kind == "regression":
        return float(np.mean(labels))
    values, counts = np.unique(labels, return_counts=True)
    return float(values[np.argmax(counts)])


def _accuracy(p: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(p == y))


def _f1(p: np.ndarray, y: np.ndarray, classes: Sequence[int]) -> float:
    from sklearn.metrics import f1_score  # a second, which scoring by losses need not wait for

    return f1_score(y, p, labels=list(classes), average="macro", zero_division=0.0)


def _log_likelihood(p: np.ndarray, _: np.ndarray) -> float:
    """Mean of rows' log-likelihoods a token, from their losses in nats."""
    return -float(np.mean(p))


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
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
    "log_likelihood": _log_likelihood,
}
