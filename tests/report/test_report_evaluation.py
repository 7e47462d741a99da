"""Which candidate counts, what is flagged, and what is refused."""

import base64
import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Made, opened, tables
from fake_run import build
from PIL import Image
from safetensors.numpy import load_file, save_file

from condpdiff.common.errors import UserError
from condpdiff.report import studies_section
from condpdiff.report.blocks import Table, markdown_table
from condpdiff.report.evaluation import Evaluation, metrics, pivot, read_csv, selected, summarise
from condpdiff.report.images import LARGEST, Picture
from condpdiff.report.page import build as build_page
from condpdiff.report.page import selected_table


def with_scores(e: Evaluation, **arms: float | list[float]) -> Evaluation:
    """`e` with the validation scores of some arms replaced; what is selected stays."""
    scores = e.scores.copy()
    for arm, values in arms.items():
        scores.loc[scores["arm"] == arm, "validation"] = values
    return replace(e, scores=scores)


def change(task: str, edit: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
    """Rewrite data/eval/<task>/scores.csv."""
    path = Path("data/eval", task, "scores.csv")
    frame = pd.read_csv(path)
    changed = edit(frame)
    (frame if changed is None else changed).to_csv(path, index=False)


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


def test_summary_gives_mean_sample_std_best_and_worst(text: Made) -> None:
    e = with_scores(text.spec.evaluations[0], condpdiff=[80, 82, 84, 86, 88, 90])
    summary = summarise([e]).set_index("arm")
    assert summary.loc["condpdiff", ["candidates", "mean", "best", "worst"]].tolist() == [6, 85, 90, 80]
    assert summary["std"]["condpdiff"] == pytest.approx(math.sqrt(14)) and math.isnan(summary["std"]["soup"])


def test_average_is_the_mean_over_tasks(text: Made) -> None:
    one, other = text.params.tasks
    summary = summarise(text.spec.evaluations)
    row = pivot(summary, "selected")["soup"]
    assert row["average"] == pytest.approx((row[one] + row[other]) / 2)
    found = metrics(summary, {})
    means = [found[task]["condpdiff_mean"] for task in (one, other)]
    assert found["average"]["condpdiff_mean"] == pytest.approx(np.mean(means), abs=0.01)
    frame = pd.read_csv(text.report / "plots/arms.csv").set_index(["task", "arm"])
    assert frame["mean"][one, "condpdiff"] == pytest.approx(means[0], abs=0.01)


def test_the_best_control_is_the_one_of_the_best_average(text: Made) -> None:
    evaluations = [with_scores(e, pca_gaussian=99.0, original=99.0) for e in text.spec.evaluations]
    assert text.spec.comparisons(summarise(evaluations), 0)["control"].arm == "pca_gaussian"


def test_the_best_of_each_column_is_bold(text: Made) -> None:
    summary = summarise([with_scores(e, soup=99.9) for e in text.spec.evaluations])
    found = selected_table(text.spec, summary, "", shared=False)
    assert found.columns == ["arm", "movies (accuracy)", "tweets (pearson)", "mean"]
    assert {found.rows[i][0] for i, _ in found.bold} == {"soup"} and len(found.bold) == 3


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
    why = text.spec.why_not_learned(with_scores(text.spec.evaluations[0], **arms), margin)
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
    if edit is None:
        path.write_bytes(b"")
    else:
        edit(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(UserError, match=says) as error:
        opened()
    assert "\n" not in str(error.value) and "0x" not in str(error.value)


def test_an_unknown_arm_comes_after_the_known_ones_and_is_shown(run: Path) -> None:
    change("movies", lambda s: pd.concat([s, s.tail(1).assign(arm="new")], ignore_index=True))
    path = Path("data/eval/movies/predictions.safetensors")
    found = load_file(path)
    save_file(found | {"predictions": np.concatenate([found["predictions"], found["predictions"][-1:]])}, path)
    spec, params = opened()
    assert spec.evaluations[0].arms[-2:] == ["condpdiff", "new"]
    assert build_page(spec, params).table.rows[-1][0] == "new"


def test_a_score_that_is_no_number_counts_as_0_and_is_counted(run: Path) -> None:
    columns = ["select", "validation"]
    change("movies", lambda s: s.assign(**{c: s[c].mask(s["arm"] == "condpdiff") for c in columns}))
    e = opened()[0].evaluations[0]
    assert e.unscored == 6
    assert pivot(summarise([e]), "selected")["condpdiff"]["movies"] == 0


@pytest.fixture
def raced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(build(tmp_path / "race", racing=True))


@pytest.mark.usefixtures("raced")
def test_in_racing_a_candidate_that_was_not_scored_does_not_count_as_zero(movies: Evaluation) -> None:
    e = opened()[0].evaluations[0]
    assert e.racing and e.unscored == 0
    ours, soup = (summarise([e]).set_index("arm").loc[arm] for arm in ("condpdiff", "soup"))
    assert ours["candidates"] == 6 and ours[["mean", "std", "best", "worst"]].isna().all()
    assert soup["selected"] == soup["mean"] == soup["best"] == soup["worst"]
    found, full = (metrics(summarise([each]), {})["movies"] for each in (e, movies))
    assert found == {k: v for k, v in full.items() if not k.endswith("_mean")}  # the same candidates are selected


@pytest.mark.usefixtures("raced")
def test_in_racing_a_winner_whose_score_is_no_number_counts_as_zero_and_flags_its_task() -> None:
    def edit(scores: pd.DataFrame) -> None:
        validation = [c for c in scores if c.startswith("validation")]
        scores.loc[[selected(scores, "condpdiff"), selected(scores, "original")], validation] = np.nan

    change("movies", edit)
    spec, _ = opened()
    assert spec.evaluations[0].unscored == 2
    assert pivot(summarise(spec.evaluations[:1]), "selected")["condpdiff"]["movies"] == 0
    assert "(0.0) is not 2 points above the majority class" in spec.why_not_learned(spec.evaluations[0], 2.0)


def test_all_metrics_stand_in_a_table_where_a_task_has_several(run: Path, text: Made) -> None:
    _, rules, metrics = tables(build_page(*opened()), "candidates")
    assert metrics.columns == ["arm", "movies accuracy", "movies f1", "tweets pearson", "tweets spearman"]
    assert rules.rows[1][0] == "original, picked on validation (paper)"
    best = [e.values("original").max() for e in text.spec.evaluations]
    assert [float(x) for x in rules.rows[1][1:]] == pytest.approx([*best, np.mean(best)], abs=0.051)


def test_large_images_are_shrunk_in_the_page_alone() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4 * LARGEST, LARGEST), "teal").save(buffer, format="PNG")
    picture = Picture("large", 'a "large" one', buffer.getvalue())
    start, data = picture.inline.removesuffix('">').split('" src="data:image/png;base64,')
    assert start == '<img alt="a &#34;large&#34; one'
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (LARGEST, LARGEST // 4)


@pytest.mark.parametrize("path", sorted(Path("configs/paper").glob("*.csv")), ids=lambda p: p.stem)
def test_the_papers_tables_name_their_source_and_can_be_read(path: Path) -> None:
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
    tasks, path = [e.name for e in text.spec.evaluations], tmp_path / "frame.csv"
    lines = [f"frame,embedded,paper,{seed},condpdiff,{task},{80 + seed}," for task in tasks for seed in (0, 2)]
    monkeypatch.setattr(studies_section, "FRAME", path)

    def last(rows: list[str], shared: bool) -> tuple[list[str], str]:
        path.write_text("\n".join([",".join(studies_section.COLUMNS), *rows]) + "\n")
        found = selected_table(text.spec, summarise(text.spec.evaluations), "", shared)
        return list(map(str, found.rows[-1])), found.caption

    row, caption = last(lines, shared=True)
    assert row == ["condpdiff, paper's variant", *["81.0"] * (len(tasks) + 1)] and "mean over 2 seeds" in caption
    assert last(lines, shared=False)[0][0] == "condpdiff"
    assert last(lines[:2], shared=True)[0][0] == "condpdiff"  # of one task alone
