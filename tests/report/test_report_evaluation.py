"""Which candidate counts, what is flagged and what is refused; intervals, and the words for them."""

import base64
import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from conftest import Made, opened, tables
from PIL import Image

from condpdiff.common.errors import UserError
from condpdiff.experiments.params import load_params
from condpdiff.report import evaluation, studies_section
from condpdiff.report.blocks import Table, markdown_table, number, signed
from condpdiff.report.evaluation import Comparison, Difference, Evaluation, pivot, read_csv, selected, summarise
from condpdiff.report.images import LARGEST, Picture
from condpdiff.report.page import build as build_page
from condpdiff.report.page import compared, selected_table, verdict, why_not_learned
from condpdiff.text.resampling import compare, metric
from condpdiff.text.task import Metric


def with_scores(e: Evaluation, **arms: float | list[float]) -> Evaluation:
    """`e` with the validation scores of some arms replaced; what is selected stays."""
    scores = e.scores.copy()
    for arm, values in arms.items():
        scores.loc[scores["arm"] == arm, "validation"] = values
    return replace(e, scores=scores)


@pytest.mark.parametrize(
    ("rows", "candidate"),
    [
        ([("a", 0, 80, 90), ("a", 1, 85, 70), ("b", 0, 99, 99)], 1),  # the best on train, not on validation
        ([("a", 2, 85, 1), ("a", 1, 85, 2), ("a", 0, 80, 3)], 1),  # ties: the lowest, whatever the order of rows
        ([("a", 0, math.nan, 90), ("a", 1, -5, 70), ("a", 2, math.nan, 99)], 1),  # what is no number is never best
    ],
)
def test_the_candidate_that_is_best_on_held_out_rows_is_selected(
    rows: list[tuple[str, int, float, float]], candidate: int
) -> None:
    scores = pd.DataFrame(rows, columns=["arm", "candidate", "select", "validation"])
    assert scores["candidate"][selected(scores, "a")] == candidate


def test_summary_gives_mean_sample_std_best_and_worst_and_the_average_is_over_tasks(text: Made) -> None:
    movies, tweets = text.evaluations
    e = with_scores(movies, condpdiff=[80, 82, 84, 86, 88, 90])
    mean = pivot(summarise([e, with_scores(tweets, condpdiff=65)]), "mean")["condpdiff"]
    assert mean.to_dict() == {"movies": 85, "tweets": 65, "average": 75}
    summary = summarise([e]).set_index("arm")
    assert summary.loc["condpdiff", ["candidates", "mean", "best", "worst"]].tolist() == [6, 85, 90, 80]
    assert summary["std"]["condpdiff"] == pytest.approx(math.sqrt(14)) and math.isnan(summary["std"]["soup"])


def test_the_best_control_is_the_one_of_the_best_average(text: Made) -> None:
    evaluations = [with_scores(e, pca_gaussian=99.0, original=99.0) for e in text.evaluations]
    assert compared(evaluations, summarise(evaluations), 0)["control"].arm == "pca_gaussian"


@pytest.mark.parametrize(
    ("arms", "margin", "word"),
    [
        ({"original": 69.2, "majority": 69.2, "no_lora": 40.0}, 0.0, "collapsed"),
        ({"original": 70.0, "majority": 69.0, "no_lora": 40.0}, 2.0, "majority class"),
        ({"original": 70.0, "majority": 50.0, "no_lora": 69.0}, 2.0, "without LoRA"),
        ({"original": 70.0, "majority": 50.0, "no_lora": 70.0}, 0.0, "without LoRA"),
        ({}, 2.0, ""),
    ],
)
def test_a_task_that_learned_nothing_is_flagged(text: Made, arms: dict[str, float], margin: float, word: str) -> None:
    why = why_not_learned(with_scores(text.evaluations[0], **arms), margin)
    assert word in why and bool(why) is bool(word)


@pytest.mark.parametrize(
    ("file", "edit", "says"),
    [
        ("movies/scores.csv", lambda s: s[s["arm"] != "majority"], "scores.csv: no row of arm 'majority'"),
        ("movies/scores.csv", lambda s: s[s["arm"] != "soup"], "scores.csv: no row of arm 'soup'"),
        ("movies/scores.csv", lambda s: s.iloc[:-1], "predictions.safetensors: predictions are"),
        ("movies/scores.csv", lambda s: s.drop(columns="validation_f1"), "no column 'validation_f1'"),
        ("tweets/points.csv", lambda p: p.iloc[:-1], "distances are .*, needed: .* one for each row of points.csv"),
        ("movies/distances.safetensors", None, "distances.safetensors: not a readable safetensors file"),
        ("movies/doses.csv", None, "doses.csv: not a readable table"),
    ],
)
def test_what_is_missing_broken_or_of_another_size_is_named_in_one_line(
    run: Path, file: str, edit: Callable[[pd.DataFrame], pd.DataFrame] | None, says: str
) -> None:
    path = Path("data/eval", file)
    path.write_text(edit(pd.read_csv(path)).to_csv(index=False) if edit else "")
    with pytest.raises(UserError, match=says) as error:
        opened()
    assert "\n" not in str(error.value) and "0x" not in str(error.value)


def test_all_metrics_stand_in_a_table_where_a_task_has_several(run: Path, text: Made) -> None:
    params, tasks = load_params()
    candidates = next(s for s in build_page(tasks, Path("data"), params).sections if s.id == "candidates")
    _, rules, metrics = tables(candidates.blocks)
    assert metrics.columns == ["arm", "movies accuracy", "movies f1", "tweets pearson", "tweets spearman"]
    assert rules.rows[1][0] == "original, picked on validation (paper)"
    best = [e.values("original").max() for e in text.evaluations]
    assert [float(x) for x in rules.rows[1][1:]] == pytest.approx([*best, np.mean(best)], abs=0.051)


def test_large_images_are_shrunk_in_the_page_alone() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4 * LARGEST, LARGEST), "teal").save(buffer, format="PNG")
    picture = Picture("large", 'a "large" one', buffer.getvalue())
    start, data = picture.inline.removesuffix('">').split('" src="data:image/png;base64,')
    assert start == '<img alt="a &#34;large&#34; one'
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (LARGEST, LARGEST // 4)


def test_the_papers_tables_name_their_source_and_can_be_read() -> None:
    for path in Path("configs/paper").glob("*.csv"):
        assert path.read_text().startswith("# Source: ") and "2408.01415" in path.read_text()
        assert len(read_csv(path, [])) >= 3


def test_bars_in_cells_split_no_column_of_a_markdown_table() -> None:
    table = Table("caption", ["a|b", "c"], [["x|y", "1|2"], ["z", "1"]], bold=frozenset({(0, 1)}))
    lines = markdown_table(table).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["x\\", "y", "**1\\", "2**"]
    assert r"x\|y" in lines[2] and r"**1\|2**" in lines[2] and lines[1].startswith("|:--") and lines[1].endswith("--:|")
    assert len({len(line) for line in lines}) == 1


def test_the_papers_variant_stands_below_a_run_of_one_frame_where_a_study_has_it(
    text: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of the study `frame`: mean over seeds of the selected candidate."""
    tasks, path = [e.name for e in text.evaluations], tmp_path / "frame.csv"
    lines = [f"frame,embedded,paper,{seed},condpdiff,{task},{80 + seed}," for task in tasks for seed in (0, 2)]
    monkeypatch.setattr(studies_section, "FRAME", path)

    def last(rows: list[str], shared: bool) -> tuple[list[str], str]:
        path.write_text("\n".join([",".join(studies_section.COLUMNS), *rows]) + "\n")
        found = selected_table(text.evaluations, summarise(text.evaluations), shared)
        return list(map(str, found.rows[-1])), found.caption

    row, caption = last(lines, shared=True)
    assert row == ["condpdiff, paper's variant", *["81.0"] * (len(tasks) + 1)] and "mean over 2 seeds" in caption
    assert last(lines, shared=False)[0][0] == "condpdiff"
    assert last(lines[:2], shared=True)[0][0] == "condpdiff"  # of one task alone


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", get_args(Metric))
def test_metrics_on_resamples_equal_the_metrics_of_the_resampled_rows(name: str, classes: int) -> None:
    from condpdiff.text.metrics import score

    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 60).astype(float)
    p = np.where(rng.uniform(size=60) < 0.6, y, rng.integers(0, classes, 60)).astype(float)
    rows = rng.integers(0, 60, (5, 60))
    counts = np.stack([np.bincount(r, minlength=60) for r in rows])
    f1_classes = [1] if classes == 2 else [0, 1, 2]
    ours = metric(name, p, y, counts, f1_classes)
    theirs = [score(p[r], y[r], [name], f1_classes)[name] for r in rows]
    np.testing.assert_allclose(ours, theirs, atol=1e-8)
    if name in ("matthews", "pearson", "spearman"):
        assert metric(name, np.ones(4), np.array([0.0, 1.0, 1.0, 0.0]), np.ones((1, 4)), []) == 0  # a constant


def test_the_difference_is_that_of_the_selected_candidates(text: Made) -> None:
    c = compare(text.evaluations, "soup", seed=0)
    expected = {e.name: e.picked("condpdiff") - e.picked("soup") for e in text.evaluations}
    assert {task: d.value for task, d in c.tasks.items()} == pytest.approx(expected, abs=1e-4)
    assert all(d.low <= d.value <= d.high for d in c.tasks.values())
    assert c.average.value == pytest.approx(np.mean(list(expected.values())))


def test_the_same_predictions_tie_and_clearly_better_ones_beat(movies: Evaluation) -> None:
    rows, predictions, labels = movies.scores["arm"] == "condpdiff", movies.predictions.copy(), movies.labels
    for said, means, word in (
        (predictions[selected(movies.scores, "soup")], False, "ties with"),
        (labels, False, "beats"),
        (1 - labels, True, "loses to"),
    ):
        predictions[rows] = said
        difference = compare([replace(movies, predictions=predictions)], "soup", 0, means=means).average
        assert difference.word == word and (word != "ties with" or difference == Difference(0, 0, 0))


def test_means_are_of_candidates_drawn_anew_and_selected_ones_are_not(movies: Evaluation) -> None:
    predictions, labels = movies.predictions.copy(), movies.labels
    rows = np.flatnonzero(movies.scores["arm"] == "condpdiff")
    predictions[movies.scores["arm"] == "soup"] = labels
    predictions[rows] = np.where(np.arange(len(rows))[:, None] % 2, labels, 1 - labels)
    predictions[selected(movies.scores, "condpdiff")] = labels  # all but the soup and the selected one are apart
    e = replace(movies, predictions=predictions)
    assert compare([e], "soup", 0).average == Difference(0, 0, 0)
    mean = compare([e], "soup", 0, means=True).average
    assert mean.value < -20 and mean.high - mean.low > 20  # every row agrees: the candidates alone make it wide


def test_student_s_interval_is_known_from_five_values_on() -> None:
    found, reach = evaluation.student(np.arange(1.0, 6.0)), 2.7764 * 0.5**0.5  # t of 4 degrees of freedom
    assert (found.low, found.value, found.high) == pytest.approx((3 - reach, 3, 3 + reach), abs=1e-3)
    few = evaluation.student(np.arange(1.0, 5.0))
    assert not few.known and np.isnan([few.low, few.high]).all() and str(few) == "+2.50"
    assert [signed(x) for x in (1.234, -0.5, -0.001, 0.0, np.nan)] == ["+1.23", "−0.50", "+0.00", "+0.00", "–"]
    assert [number(x, 1) for x in (1.234, -0.5, np.nan)] == ["1.2", "−0.5", "–"]


def test_correlation_is_of_ranks_and_leaves_out_what_is_not_known() -> None:
    x = np.array([1.0, 2.0, 3.0, np.nan, 4.0])
    assert evaluation.correlation(x, np.array([1.0, 10.0, 100.0, 0.0, np.nan])) == pytest.approx(1)
    assert evaluation.correlation(x, -(x**3)) == pytest.approx(-1)
    assert np.isnan(evaluation.correlation(x, np.ones(5))) and np.isnan(evaluation.correlation(x[:1], x[:1]))


@pytest.mark.parametrize(
    ("interval", "word"), [((0.1, 0.9), "beats"), ((-0.4, 0.6), "ties with"), ((-2.0, -0.1), "loses to")]
)
def test_the_verdict_says_what_the_interval_says(text: Made, interval: tuple[float, float], word: str) -> None:
    d = Difference(sum(interval) / 2, *interval)
    control = Comparison("gaussian", {"movies": d, "tweets": d}, d)
    found = {"control": control, "soup": control._replace(arm="soup"), "mean": control._replace(arm="original")}
    lines = verdict(found, summarise(text.evaluations), {"tweets": "collapsed"})
    assert f"**{word}** the best control, gaussian" in lines[0]
    assert f"It **{word}** soup" in lines[1] and "Mean against mean" in " ".join(lines)
    assert any("1 of 2 task was not learned (tweets)" in line for line in lines)
    beaten = found["mean"]._replace(average=Difference(1, 0.5, 2))
    lines = verdict(found | {"mean": beaten}, summarise(text.evaluations), {})
    assert ("that gain does not speak for one" in " ".join(lines)) is (word != "beats")
