"""Which candidate counts, what is flagged, and what is refused."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_run import build

from condpdiff.common.errors import UserError
from condpdiff.report.blocks import Table, markdown_table
from condpdiff.report.overlap import wrong_overlap
from condpdiff.report.readers import read_csv
from condpdiff.report.tables import (
    ARMS,
    Evaluation,
    metrics,
    not_learned,
    paper_pick,
    pivot,
    read_evaluation,
    selected,
    summarise,
)
from condpdiff.text.task import load_task


def read(run: Path, name: str = "movies") -> Evaluation:
    return read_evaluation(run / "data/eval", name, load_task(name))


def table(rows: Sequence[tuple[str, int, float, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["arm", "candidate", "select", "validation"])


def with_scores(e: Evaluation, **arms: float | list[float]) -> Evaluation:
    """`e` with the validation scores of some arms replaced."""
    scores = e.scores.copy()
    for arm, values in arms.items():
        scores.loc[scores["arm"] == arm, "validation"] = values
    return replace(e, scores=scores)


def test_the_best_on_train_is_selected_not_the_best_on_validation() -> None:
    scores = table([("a", 0, 80, 90), ("a", 1, 85, 70), ("b", 0, 99, 99)])
    assert selected(scores, "a") == 1


def test_ties_go_to_the_lowest_candidate_whatever_the_order_of_rows() -> None:
    scores = table([("a", 2, 85, 1), ("a", 1, 85, 2), ("a", 0, 80, 3)])
    assert scores["candidate"][selected(scores, "a")] == 1


def test_the_papers_rule_picks_original_on_validation_and_the_rest_on_train() -> None:
    rows = [(arm, c, s, v) for arm in ("original", "condpdiff") for c, s, v in ((0, 80, 90), (1, 85, 70))]
    scores = table(rows)
    assert [paper_pick(scores, arm) for arm in ("original", "condpdiff")] == [0, 3]
    assert [selected(scores, arm) for arm in ("original", "condpdiff")] == [1, 3]


def test_summary_gives_mean_sample_std_best_and_worst(run: Path) -> None:
    e = with_scores(read(run), condpdiff=[80, 82, 84, 86, 88, 90])
    row = next(s for s in summarise([e]) if s.arm == "condpdiff")
    assert (row.candidates, row.mean, row.best, row.worst) == (6, 85, 90, 80)
    assert row.std == pytest.approx(math.sqrt(14))
    assert math.isnan(next(s for s in summarise([e]) if s.arm == "soup").std)


def test_average_is_the_mean_over_tasks(run: Path) -> None:
    summary = summarise([read(run, "movies"), read(run, "tweets")])
    row = pivot(summary, "selected")["soup"]
    assert row["average"] == pytest.approx((row["movies"] + row["tweets"]) / 2)


def test_learned_tasks_are_not_flagged(run: Path) -> None:
    es = [read(run, "movies"), read(run, "tweets")]
    assert not_learned(es, summarise(es), 2.0) == {}


@pytest.mark.parametrize(
    ("arms", "margin", "word"),
    [
        ({"original": 69.2, "majority": 69.2, "no_lora": 40.0}, 2.0, "collapsed"),
        ({"original": 69.2, "majority": 69.2, "no_lora": 40.0}, 0.0, "collapsed"),
        ({"original": 70.0, "majority": 69.0, "no_lora": 40.0}, 2.0, "majority class"),
        ({"original": 70.0, "majority": 50.0, "no_lora": 69.0}, 2.0, "without LoRA"),
        ({"original": 70.0, "majority": 50.0, "no_lora": 70.0}, 0.0, "without LoRA"),
    ],
)
def test_a_task_that_learned_nothing_is_flagged(run: Path, arms: dict[str, float], margin: float, word: str) -> None:
    e = with_scores(read(run), **arms)
    summary = summarise([e])
    flags = not_learned([e], summary, margin)
    assert word in flags["movies"]
    assert metrics(summary, flags)["tasks_not_learned"] == 1


def test_metrics_are_few_and_rounded(run: Path) -> None:
    es = [read(run, "movies"), read(run, "tweets")]
    result = metrics(summarise(es), {})
    assert list(result) == ["movies", "tweets", "average", "tasks_not_learned"]
    for task in ("movies", "tweets", "average"):
        row = result[task]
        assert isinstance(row, dict)
        assert list(row) == ["condpdiff", "original", "soup", "gaussian", "condpdiff_mean", "original_mean"]
        assert all(value == round(value, 2) for value in row.values())


def test_overlap_of_mistakes_leaves_out_the_checkpoint_itself(run: Path) -> None:
    e = read(run)
    labels = np.zeros(4)
    scores = table([("original", 0, 0, 0), ("original", 1, 0, 0), ("condpdiff", 0, 0, 0)])
    predictions = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]])
    e = replace(e, scores=scores, labels=labels, predictions=predictions)
    assert wrong_overlap(e, "condpdiff") == 1
    assert wrong_overlap(e, "original") == pytest.approx(1 / 3)


@pytest.mark.parametrize("arm", list(ARMS))
def test_a_missing_arm_is_named(run: Path, arm: str) -> None:
    path = run / "data/eval/movies/scores.csv"
    scores = pd.read_csv(path)
    scores[scores["arm"] != arm].to_csv(path, index=False)
    with pytest.raises(UserError, match=f"scores.csv: no row of arm '{arm}'"):
        read(run)


def test_an_unknown_arm_comes_after_the_known_ones(run: Path) -> None:
    path = run / "data/eval/movies/scores.csv"
    scores = pd.read_csv(path)
    scores.loc[scores.index[-1], "arm"] = "nonsense_text"
    scores.to_csv(path, index=False)
    assert read(run).arms[-2:] == ["condpdiff", "nonsense_text"]


def test_a_missing_metric_a_missing_file_and_wrong_sizes_are_named(run: Path) -> None:
    path = run / "data/eval/movies/scores.csv"
    scores = pd.read_csv(path)
    scores.drop(columns="validation_f1").to_csv(path, index=False)
    with pytest.raises(UserError, match="no column 'validation_f1'"):
        read(run)
    scores.iloc[:-1].to_csv(path, index=False)
    with pytest.raises(UserError, match="predictions.safetensors: predictions are"):
        read(run)
    path.unlink()
    with pytest.raises(UserError, match="scores.csv: no such file"):
        read(run)


def test_a_broken_tensor_file_is_named(run: Path) -> None:
    (run / "data/eval/movies/distances.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="distances.safetensors: not a readable"):
        read(run)


def test_a_score_that_is_no_number_counts_as_zero_and_is_counted(run: Path) -> None:
    path = run / "data/eval/movies/scores.csv"
    scores = pd.read_csv(path)
    scores.loc[scores["arm"] == "condpdiff", ["select", "validation"]] = float("nan")
    scores.to_csv(path, index=False)
    e = read(run)
    assert e.unscored == 6
    assert pivot(summarise([e]), "selected")["condpdiff"]["movies"] == 0


@pytest.mark.parametrize("path", sorted(Path("configs/paper").glob("*.csv")), ids=lambda p: p.stem)
def test_the_papers_tables_name_their_source_and_can_be_read(path: Path) -> None:
    assert path.read_text().startswith("# Source: ") and "2408.01415" in path.read_text()
    assert len(read_csv(path, [])) >= 3


def test_the_selected_candidates_of_a_race_are_those_of_full(run: Path, tmp_path: Path) -> None:
    raced = build(tmp_path / "race", racing=True)
    found = [metrics(summarise([read(root)]), {})["movies"] for root in (run, raced)]
    assert found[0] == found[1] | {k: v for k, v in found[0].items() if k.endswith("_mean")}
    assert not [k for k in found[1] if k.endswith("_mean")]


def test_metrics_have_the_mean_over_all_candidates(run: Path) -> None:
    es = [with_scores(read(run), condpdiff=[80, 82, 84, 86, 88, 90]), read(run, "tweets")]
    result = metrics(summarise(es), {})
    mean = {task: result[task]["condpdiff_mean"] for task in ("movies", "tweets", "average")}
    assert mean["movies"] == 85
    assert mean["average"] == pytest.approx((85 + mean["tweets"]) / 2, abs=0.01)


def race(run: Path) -> tuple[Path, pd.DataFrame]:
    """movies' scores after a race whose winner is the third candidate of each arm of several."""
    path = run / "data/eval/movies/scores.csv"
    (path.parent / "passes.json").write_text('{"select": "racing", "rows": {}}')
    scores = pd.read_csv(path)
    many = scores.groupby("arm")["candidate"].transform("size") > 1
    dropped, won = many & (scores["candidate"] > 3), ~many | (scores["candidate"] == 2)
    scores.loc[many, "select"] = np.where(won[many], 90.0, 80.0)
    scores.loc[dropped, ["rows", "select"]] = [12, np.nan]
    scores.loc[~won, [c for c in scores if c.startswith("validation")]] = np.nan
    return path, scores


def test_in_racing_a_candidate_that_was_not_scored_does_not_count_as_zero(run: Path) -> None:
    path, scores = race(run)
    scores.to_csv(path, index=False)
    e = read(run)
    assert e.racing and e.unscored == 0
    row = next(s for s in summarise([e]) if s.arm == "condpdiff")
    assert (e.scores["candidate"][row.row], row.candidates) == (2, 6)
    assert row.selected == scores["validation"][row.row] > 0
    assert all(math.isnan(x) for x in (row.mean, row.std, row.best, row.worst, row.paper))
    soup = next(s for s in summarise([e]) if s.arm == "soup")
    assert soup.selected == soup.mean == soup.best == soup.worst == soup.paper


def test_in_racing_a_winner_whose_score_is_no_number_counts_as_zero(run: Path) -> None:
    path, scores = race(run)
    best = selected(scores, "condpdiff")
    scores.loc[best, [c for c in scores if c.startswith("validation")]] = np.nan
    scores.to_csv(path, index=False)
    e = read(run)
    assert e.unscored == 1
    assert pivot(summarise([e]), "selected")["condpdiff"]["movies"] == 0


def test_in_racing_a_task_is_flagged_by_its_selected_checkpoint(run: Path) -> None:
    path, scores = race(run)
    scores.loc[selected(scores, "original"), "validation"] = 60.0
    scores.loc[scores["arm"] == "majority", "validation"] = 59.0
    scores.to_csv(path, index=False)
    e = read(run)
    assert "is not 2 points above the majority class" in not_learned([e], summarise([e]), 2.0)["movies"]


def test_a_select_score_that_is_no_number_is_never_the_best() -> None:
    scores = table([("a", 0, math.nan, 90), ("a", 1, -5, 70), ("a", 2, math.nan, 99)])
    assert selected(scores, "a") == 1


def test_bars_in_cells_split_no_column_of_a_markdown_table() -> None:
    table = Table("caption", ["a|b", "c"], [["x|y", "1|2"]], bold=frozenset({(0, 1)}))
    assert markdown_table(table).splitlines() == [r"| a\|b |        c |", "|------|---------:|", r"| x\|y | **1\|2** |"]
