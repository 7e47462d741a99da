"""Metrics of text tasks, in percent, as local `evaluate` metrics (the hub's need a network)."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from scipy import stats
from sklearn import metrics as sk

from condpdiff.text.task import Task


class TaskMetrics(evaluate.Metric):
    """All metrics that a task file names; `compute` gives {name: percent}.

    A correlation with a constant prediction is undefined; it counts as 0, as a constant has learned nothing.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        value = datasets.Value("float32")
        return evaluate.MetricInfo(
            description="metrics of one task",
            citation="",
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return score(np.asarray(predictions), np.asarray(references), self.task.metrics)


def score(predictions: np.ndarray, references: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Metrics of one set of predictions [V] against references [V], in percent."""
    return {name: 100.0 * float(_METRICS[name](predictions, references)) for name in names}


def constant_prediction(labels: np.ndarray, kind: str) -> float:
    """The majority class of the training labels, or their mean (regression)."""
    if kind == "regression":
        return float(np.mean(labels))
    values, counts = np.unique(labels, return_counts=True)
    return float(values[np.argmax(counts)])


def _f1(p: np.ndarray, y: np.ndarray) -> float:
    return sk.f1_score(y, p, average="binary" if set(np.unique(y)) | set(np.unique(p)) <= {0, 1} else "macro")


def _correlation(kind: str, p: np.ndarray, y: np.ndarray) -> float:
    if np.ptp(p) == 0 or np.ptp(y) == 0:
        return 0.0
    return (stats.pearsonr if kind == "pearson" else stats.spearmanr)(p, y).statistic


_METRICS = {
    "accuracy": lambda p, y: sk.accuracy_score(y, p),
    "f1": _f1,
    "matthews": lambda p, y: sk.matthews_corrcoef(y, p),
    "pearson": lambda p, y: _correlation("pearson", p, y),
    "spearman": lambda p, y: _correlation("spearman", p, y),
}
