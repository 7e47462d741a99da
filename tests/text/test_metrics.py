"""Metrics in percent: those of sklearn and scipy, and 0 for what a constant has learned."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from condpdiff.text.metrics import constant_prediction, score

RNG = np.random.default_rng(0)
Y2, P2 = RNG.integers(0, 2, 200), RNG.integers(0, 2, 200)
Y3, P3 = RNG.integers(0, 3, 200), RNG.integers(0, 3, 200)
YR = RNG.normal(size=200)
PR = YR + RNG.normal(size=200)


def test_metrics_equal_the_libraries_in_percent() -> None:
    expected = {"accuracy": sk.accuracy_score, "f1": sk.f1_score, "matthews": sk.matthews_corrcoef}
    for name, metric in expected.items():
        assert score(P2, Y2, [name]) == {name: pytest.approx(100 * metric(Y2, P2))}
    for name, metric in {"pearson": stats.pearsonr, "spearman": stats.spearmanr}.items():
        assert score(PR, YR, [name]) == {name: pytest.approx(100 * metric(PR, YR).statistic)}


def test_f1_has_one_average_whatever_is_predicted() -> None:
    """Of more than two classes the mean over all of the task, also where rows and predictions hold two alone."""
    every = [0, 1, 2]
    assert score(P3, Y3, ["f1"], every) == {"f1": pytest.approx(100 * sk.f1_score(Y3, P3, average="macro"))}
    two = sk.f1_score(Y2, P2, labels=every, average="macro", zero_division=0)
    assert score(P2, Y2, ["f1"], every) == {"f1": pytest.approx(100 * two)}
    stray = P2.copy()
    stray[0] = 2
    assert abs(score(stray, Y2, ["f1"], every)["f1"] - 100 * two) < 1
    assert score(P2, Y2, ["f1"], [0]) == {"f1": pytest.approx(100 * sk.f1_score(Y2, P2, pos_label=0))}


@pytest.mark.filterwarnings("error")
def test_a_constant_scores_zero_without_a_warning() -> None:
    for name in ("pearson", "spearman"):
        assert score(np.full(200, 0.3), YR, [name]) == score(PR, np.zeros(200), [name]) == {name: 0.0}
    for name in ("f1", "matthews"):
        assert score(np.zeros(200), Y2, [name]) == {name: 0.0}


def test_constant_is_the_majority_class_the_first_of_equals_or_the_mean() -> None:
    assert constant_prediction(np.array([2.0, 1, 2, 0]), "classification") == 2
    assert constant_prediction(np.array([1.0, 0]), "classification") == 0
    assert constant_prediction(np.array([1.0, 2, 6]), "regression") == 3
