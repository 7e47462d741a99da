"""Metrics of text tasks, in percent: scikit-learn's and SciPy's; a log-likelihood is in hundredths of a nat."""

from collections.abc import Sequence

import numpy as np


def score(
    predictions: np.ndarray, references: np.ndarray, names: Sequence[str], f1_classes: Sequence[int] = (1,)
) -> dict[str, float]:
    """Metrics of one set of predictions [V] against references [V], in percent.
    Args: f1_classes: the classes whose F1 are averaged, whatever is predicted: candidates are compared by it."""
    return {name: 100.0 * float(_metric(name, predictions, references, f1_classes)) for name in names}


def constant_prediction(labels: np.ndarray, kind: str) -> float:
    """The majority class of the training labels, or their mean (regression)."""
    if kind == "regression":
        return float(np.mean(labels))
    values, counts = np.unique(labels, return_counts=True)
    return float(values[np.argmax(counts)])


def _metric(name: str, p: np.ndarray, y: np.ndarray, f1_classes: Sequence[int]) -> float:
    if name == "accuracy":
        return float(np.mean(p == y))
    if name == "log_likelihood":  # mean of rows' log-likelihoods a token, from their losses in nats
        return -float(np.mean(p))
    if name in ("pearson", "spearman"):
        from scipy import stats  # a second, and so is scikit-learn, which scoring by losses need not wait for

        if np.ptp(p) == 0 or np.ptp(y) == 0:  # undefined: a constant has learned nothing
            return 0.0
        return (stats.pearsonr if name == "pearson" else stats.spearmanr)(p, y).statistic
    from sklearn import metrics

    if name == "matthews":
        return metrics.matthews_corrcoef(y, p)
    return metrics.f1_score(y, p, labels=list(f1_classes), average="macro", zero_division=0.0)
