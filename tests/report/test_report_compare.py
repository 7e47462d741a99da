"""Intervals, bootstrap metrics against the ones that score candidates, and the words for them."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from conftest import Made

from condpdiff.report.compare import Comparison, Difference, correlation, number, signed, student
from condpdiff.report.evaluation import Evaluation, selected, summarise
from condpdiff.report.page import verdict
from condpdiff.text.resampling import METRICS, Outputs, compare, metric_of

Run = tuple[list[Evaluation], Mapping[str, Outputs]]


@pytest.fixture
def both(text: Made) -> Run:
    return text.spec.evaluations, text.spec.outputs


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", [*METRICS, "f1"])
def test_metrics_on_resamples_equal_the_metrics_of_the_resampled_rows(name: str, classes: int) -> None:
    from condpdiff.text.metrics import score

    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 60).astype(float)
    p = np.where(rng.uniform(size=60) < 0.6, y, rng.integers(0, classes, 60)).astype(float)
    rows = rng.integers(0, 60, (5, 60))
    counts = np.stack([np.bincount(r, minlength=60) for r in rows])
    f1_classes = [1] if classes == 2 else [0, 1, 2]
    ours = metric_of(name, f1_classes)(p, y, counts)
    theirs = [score(p[r], y[r], [name], f1_classes)[name] for r in rows]
    np.testing.assert_allclose(ours, theirs, atol=1e-8)
    if name in ("matthews", "pearson", "spearman"):
        assert METRICS[name](np.ones(4), np.array([0.0, 1.0, 1.0, 0.0]), np.ones((1, 4))) == 0  # a constant


def test_the_difference_is_that_of_the_selected_candidates(both: Run) -> None:
    c = compare(*both, "soup", seed=0)
    expected = {e.name: e.picked("condpdiff") - e.picked("soup") for e in both[0]}
    assert {task: d.value for task, d in c.tasks.items()} == pytest.approx(expected, abs=1e-4)
    assert all(d.low <= d.value <= d.high for d in c.tasks.values())
    assert c.average.value == pytest.approx(np.mean(list(expected.values())))


def test_the_same_predictions_tie_and_clearly_better_ones_beat(both: Run) -> None:
    movies, (found, labels) = both[0][0], both[1]["movies"]
    rows, predictions = movies.scores["arm"] == "condpdiff", found.copy()
    for said, means, word in (
        (predictions[selected(movies.scores, "soup")], False, "ties with"),
        (labels, False, "beats"),
        (1 - labels, True, "loses to"),
    ):
        predictions[rows] = said
        difference = compare([movies], {"movies": (predictions, labels)}, "soup", 0, means=means).average
        assert difference.word == word and (word != "ties with" or difference == Difference(0, 0, 0))


def test_means_are_of_candidates_drawn_anew_and_selected_ones_are_not(both: Run) -> None:
    movies, (found, labels) = both[0][0], both[1]["movies"]
    predictions = found.copy()
    rows = np.flatnonzero(movies.scores["arm"] == "condpdiff")
    predictions[movies.scores["arm"] == "soup"] = labels
    predictions[rows] = np.where(np.arange(len(rows))[:, None] % 2, labels, 1 - labels)
    predictions[selected(movies.scores, "condpdiff")] = labels  # all but the soup and the selected one are apart
    outputs = {"movies": (predictions, labels)}
    assert compare([movies], outputs, "soup", 0).average == Difference(0, 0, 0)
    mean = compare([movies], outputs, "soup", 0, means=True).average
    assert mean.value < -20 and mean.high - mean.low > 20  # every row agrees: the candidates alone make it wide


def test_student_s_interval_is_known_from_five_values_on() -> None:
    found, reach = student(np.array([1.0, 2.0, 3.0, 4.0, 5.0])), 2.7764 * (2.5 / 5) ** 0.5  # t of 4 degrees of freedom
    assert (found.low, found.value, found.high) == pytest.approx((3 - reach, 3, 3 + reach), abs=1e-3)
    few = student(np.array([1.0, 2.0, 3.0, 4.0]))
    assert not few.known and np.isnan([few.low, few.high]).all() and str(few) == "+2.50"
    assert [signed(x) for x in (1.234, -0.5, -0.001, 0.0, np.nan)] == ["+1.23", "−0.50", "+0.00", "+0.00", "–"]
    assert [number(x, 1) for x in (1.234, -0.5, np.nan)] == ["1.2", "−0.5", "–"]


def test_correlation_is_of_ranks_and_leaves_out_what_is_not_known() -> None:
    x = np.array([1.0, 2.0, 3.0, np.nan, 4.0])
    assert correlation(x, np.array([1.0, 10.0, 100.0, 0.0, np.nan])) == pytest.approx(1)
    assert correlation(x, -(x**3)) == pytest.approx(-1)
    assert np.isnan(correlation(x, np.ones(5))) and np.isnan(correlation(x[:1], x[:1]))


@pytest.mark.parametrize(
    ("interval", "word"), [((0.1, 0.9), "beats"), ((-0.4, 0.6), "ties with"), ((-2.0, -0.1), "loses to")]
)
def test_the_verdict_says_what_the_interval_says(text: Made, interval: tuple[float, float], word: str) -> None:
    d = Difference(sum(interval) / 2, *interval)
    control = Comparison("gaussian", {"movies": d, "tweets": d}, d)
    found = {"control": control, "soup": replace(control, arm="soup"), "mean": replace(control, arm="original")}
    lines = verdict(text.spec, found, summarise(text.spec.evaluations), {"tweets": "collapsed"})
    assert f"**{word}** the best control, gaussian" in lines[0]
    assert f"It **{word}** soup" in lines[1] and "Mean against mean" in " ".join(lines)
    assert any("1 of 2 task was not learned (tweets)" in line for line in lines)
    beaten = replace(found["mean"], average=Difference(1, 0.5, 2))
    lines = verdict(text.spec, found | {"mean": beaten}, summarise(text.spec.evaluations), {})
    assert ("that gain does not speak for one" in " ".join(lines)) is (word != "beats")
