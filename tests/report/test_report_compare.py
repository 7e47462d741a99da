"""Bootstrap metrics against the ones that score candidates, intervals, and the words for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from condpdiff.report.compare import METRICS, Comparison, Difference, compare, signed, student, verdict
from condpdiff.report.tables import Evaluation, read_evaluation, selected, summarise
from condpdiff.text.task import load_task


def both(run: Path) -> list[Evaluation]:
    return [read_evaluation(run / "data/eval", n, load_task(n)) for n in ("movies", "tweets")]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", list(METRICS))
def test_metrics_on_resamples_equal_the_metrics_of_the_resampled_rows(name: str, classes: int) -> None:
    from condpdiff.text.metrics import score

    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 60).astype(float)
    p = np.where(rng.uniform(size=60) < 0.6, y, rng.integers(0, classes, 60)).astype(float)
    rows = rng.integers(0, 60, (5, 60))
    counts = np.stack([np.bincount(r, minlength=60) for r in rows])
    ours = METRICS[name](p, y, counts)
    theirs = [score(p[r], y[r], [name])[name] for r in rows]
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman"])
def test_a_constant_prediction_scores_zero(name: str) -> None:
    y = np.array([0.0, 1.0, 1.0, 0.0])
    assert METRICS[name](np.ones(4), y, np.ones((1, 4))) == 0


def test_the_difference_is_that_of_the_selected_candidates(run: Path) -> None:
    es = both(run)
    c = compare(es, "soup", "selected", seed=0)
    for e in es:
        v = e.scores["validation"]
        expected = v[selected(e.scores, "condpdiff")] - v[selected(e.scores, "soup")]
        assert c.tasks[e.name].value == pytest.approx(expected, abs=1e-4)
        assert c.tasks[e.name].low <= expected <= c.tasks[e.name].high
    assert c.average.value == pytest.approx(np.mean([d.value for d in c.tasks.values()]))


def test_the_same_predictions_tie_and_clearly_better_ones_beat(run: Path) -> None:
    (movies, _) = both(run)
    rows = movies.scores["arm"] == "condpdiff"
    predictions = movies.predictions.copy()
    predictions[rows] = predictions[selected(movies.scores, "soup")]
    d = compare([replace(movies, predictions=predictions)], "soup", "selected", 0).average
    assert (d.value, d.low, d.high, d.word) == (0, 0, 0, "ties with")
    predictions[rows] = movies.labels
    assert compare([replace(movies, predictions=predictions)], "soup", "selected", 0).average.word == "beats"
    predictions[rows] = 1 - movies.labels
    assert compare([replace(movies, predictions=predictions)], "soup", "mean", 0).average.word == "loses to"


def test_the_same_seed_gives_the_same_interval(run: Path) -> None:
    es = both(run)
    assert compare(es, "gaussian", "mean", 3) == compare(es, "gaussian", "mean", 3)
    assert compare(es, "gaussian", "mean", 3) != compare(es, "gaussian", "mean", 4)


def test_means_are_of_candidates_drawn_anew_and_selected_ones_are_not(run: Path) -> None:
    (movies, _) = both(run)
    predictions = movies.predictions.copy()
    rows = np.flatnonzero(movies.scores["arm"] == "condpdiff")
    best = selected(movies.scores, "condpdiff")
    predictions[movies.scores["arm"] == "soup"] = movies.labels
    predictions[rows] = np.where(np.arange(len(rows))[:, None] % 2, movies.labels, 1 - movies.labels)
    predictions[best] = movies.labels  # all candidates but the soup and the selected one are apart
    e = replace(movies, predictions=predictions)
    assert compare([e], "soup", "selected", 0).average == Difference(0, 0, 0)
    found = compare([e], "soup", "mean", 0).average
    assert found.value < -20 and found.high - found.low > 20  # every row agrees: the candidates alone make it wide


def test_student_s_interval_is_known_from_three_values_on() -> None:
    found = student(np.array([1.0, 2.0, 3.0]), lower=True)
    assert (found.value, found.lower) == (2.0, True)
    assert found.high - found.value == pytest.approx(4.3027 / 3**0.5, abs=1e-3)  # t of 2 degrees of freedom, std 1
    assert found.value - found.low == pytest.approx(found.high - found.value)
    assert np.isnan([student(np.array([1.0, 2.0])).low, student(np.array([1.0, 2.0])).high]).all()


def test_signs_and_no_negative_zero() -> None:
    assert [signed(x) for x in (1.234, -0.5, -0.001, 0.0)] == ["+1.23", "−0.50", "+0.00", "+0.00"]


@pytest.mark.parametrize(
    ("interval", "word"), [((0.1, 0.9), "beats"), ((-0.4, 0.6), "ties with"), ((-2.0, -0.1), "loses to")]
)
def test_the_verdict_says_what_the_interval_says(run: Path, interval: tuple[float, float], word: str) -> None:
    summary = summarise(both(run))
    d = Difference(sum(interval) / 2, *interval)
    control = Comparison("gaussian", "selected", {"movies": d, "tweets": d}, d)
    lines = verdict(
        {"control": control, "soup": replace(control, arm="soup"), "original mean": replace(control, arm="original")},
        summary,
        {"tweets": "collapsed"},
    )
    assert f"**{word}** the best control, gaussian" in lines[0]
    assert any("1 of 2 task was not learned (tweets)" in line for line in lines)


def test_the_verdict_of_a_race_has_no_mean_against_mean(run: Path) -> None:
    summary = summarise(both(run))
    d = Difference(1.0, 0.5, 1.5)
    control = Comparison("soup", "selected", {"movies": d, "tweets": d}, d)
    lines = verdict({"control": control, "soup": control}, summary, {})
    assert lines[0].startswith("Over the mean of 2 tasks, condpdiff")
    assert "Mean against mean" not in " ".join(lines)
