"""The section on the condition: the swap matrix, what an own condition adds, and tasks never trained on."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_run import build
from fake_style_run import build_styles

from condpdiff.common.errors import UserError
from condpdiff.experiments.params import load_params
from condpdiff.report.blocks import Table, Text
from condpdiff.report.probe import OTHERS, STATISTICS_OF_OTHERS, Probed, effect, read_probe, sections, verdict
from condpdiff.report.style_tables import StyleEvaluation, read_style
from condpdiff.report.tables import Evaluation, read_evaluation
from condpdiff.text.report import make

ROOT = Path("data/probe")
FIVE = ("movies", "tweets", "moods", "four", "five")


def text(
    root: Path, monkeypatch: pytest.MonkeyPatch, tasks: tuple[str, ...] = FIVE, effect: float = 0.0
) -> tuple[Probed, list[Evaluation]]:
    monkeypatch.chdir(build(root, tasks=tasks, n=6, v=20, effect=effect))
    found = load_params()[1]
    return read_probe(ROOT, False), [read_evaluation(Path("data/eval"), name, task) for name, task in found.items()]


def styles(root: Path, monkeypatch: pytest.MonkeyPatch, effect: float) -> tuple[Probed, list[StyleEvaluation]]:
    monkeypatch.chdir(build_styles(root, styles=("charcoal", "chalk", "waves", "own"), n=6, effect=effect))
    found = load_params()[1]
    return read_probe(ROOT, True), [read_style(Path("data/eval"), name, task) for name, task in found.items()]


def tables(found: Probed, evaluations: list, method: str = "task") -> tuple[list[Table], str]:
    """The section's tables, and all its paragraphs."""
    (section,) = sections(found, evaluations, method, load_params()[0].probe)
    words = " ".join(block.text for block in section.blocks if isinstance(block, Text))
    return [block for block in section.blocks if isinstance(block, Table)], words


def test_the_swap_matrix_has_every_condition_and_marks_the_own_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (swap, statistics, contrasts, _), _ = tables(*text(tmp_path / "run", monkeypatch, effect=5.0))
    assert swap.columns == ["condition", *FIVE]
    assert [row[0] for row in swap.rows] == [*FIVE, "nonsense", "dropped"]
    assert swap.bold == {(i, i + 1) for i in range(5)}
    for i, row in enumerate(swap.rows):
        for j, cell in enumerate(row[1:]):
            assert float(cell) == pytest.approx(90 if i == j else 85, abs=0.3)
    assert "Mean score of 2 LoRAs a cell" in swap.caption and "random words" in swap.caption
    assert [row[0] for row in contrasts.rows] == [OTHERS, "nonsense", "dropped", STATISTICS_OF_OTHERS]
    for row, expected in zip(contrasts.rows, (5, 5, 5, 17.5), strict=True):
        assert all(float(cell) == pytest.approx(expected, abs=0.4) for cell in row[1:6])
    assert [row[0] for row in statistics.rows] == list(FIVE) and statistics.bold == swap.bold
    for i, row in enumerate(statistics.rows):
        assert all(float(cell) == pytest.approx(90 if i == j else 72.5, abs=0.3) for j, cell in enumerate(row[1:]))


@pytest.mark.parametrize(
    ("effect_", "words"),
    [(5.0, "is **used**"), (-5.0, "works **against the task**")],
)
def test_the_verdict_says_whether_the_condition_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effect_: float, words: str
) -> None:
    found, evaluations = text(tmp_path / "run", monkeypatch, effect=effect_)
    line, other = verdict(found, evaluations)
    assert line.startswith(f"The condition {words}: ") and "95 % interval" in line
    assert other.startswith("The statistics **choose the task**: under a task's own condition, own statistics minus ")
    effects = effect(found, evaluations)
    assert effects["condition_effect"] == pytest.approx(effect_, abs=0.2)
    assert effects["statistics_effect"] == pytest.approx(17.5, abs=0.2)


def test_differences_that_chance_explains_are_not_measurable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, evaluations = text(tmp_path / "run", monkeypatch)
    found.swap["score"] = 80.0
    for name, score in (("movies", 81.0), ("moods", 79.2)):
        own = (found.swap[["condition", "statistics", "task"]] == name).all(axis=1)
        found.swap.loc[own, "score"] = score
    lines = verdict(found, evaluations)
    assert lines[0].startswith("The condition is **not measurably used**: ")
    assert lines[1].startswith("The statistics are **not measurably used**: ")


def test_of_styles_a_lower_distance_under_the_own_condition_is_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, evaluations = styles(tmp_path / "run", monkeypatch, -4.0)
    line, other = verdict(found, evaluations)
    assert line.startswith("The condition is **used**: ") and "FD-Lite0, lower is better" in line
    assert other.startswith("The statistics **choose the style**: under a style's own condition")
    (swap, _, contrasts, unseen), words = tables(found, evaluations)
    assert "images of noise" in swap.caption and "head" not in unseen.caption
    assert "negative: the own is better" in contrasts.caption
    floors = {e.name: f"{e.picked('floor'):.2f}" for e in evaluations}
    assert swap.rows[-1] == ["floor", *(floors[task] for task in found.tasks)]
    assert unseen.rows[-1][:2] == ["floor", floors[found.left_out[0]]]
    assert "own condition **beats** the other" in words
    assert "never trained on" in words and "**beats** no LoRA" in words


def test_few_tasks_have_figures_but_no_interval_and_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, evaluations = text(tmp_path / "run", monkeypatch, tasks=("movies", "tweets"), effect=5.0)
    lines = verdict(found, evaluations)
    assert lines[0].startswith("Whether the condition is used **can't be told** from 2 tasks: ")
    assert lines[1].startswith("Whether the statistics are used **can't be told** from 2 tasks: ")
    assert "interval" not in "".join(lines)
    _, words = tables(found, evaluations)
    assert "95 %" not in words and "**" not in words


def test_a_task_never_trained_on_is_held_against_no_lora_and_the_others_soups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, evaluations = text(tmp_path / "run", monkeypatch)
    (*_, unseen), words = tables(found, evaluations)
    assert unseen.columns == ["left out", *FIVE, "mean"]
    cells = {row[0]: row[1:] for row in unseen.rows}
    assert list(cells)[:3] == ["no LoRA", "the mean of the others' soups", "the others' soups weighted by similarity"]
    assert cells["no LoRA"] == ["50.0"] * 6 and cells["own soup"] == ["85.0"] * 6
    assert float(cells["condpdiff (mean statistics)"][-1]) == pytest.approx(67.5, abs=0.2)
    assert {unseen.rows[i][0] for i in unseen.accent} == {c for c in cells if c.startswith("condpdiff")}
    original = np.mean([e.scores.loc[e.scores["arm"] == "original", "validation"].mean() for e in evaluations])
    assert float(cells["original, mean"][-1]) == pytest.approx(original, abs=0.1)
    for statistics, soups in (("mean statistics", "mean of"), ("statistics by similarity", "weighted")):
        sentence = next(s for s in words.split(". ") if f"({statistics})" in s)
        assert "**beats** no LoRA" in sentence and soups in sentence and sentence.count("**beats**") == 2


def test_statistics_that_all_tasks_share_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, evaluations = text(tmp_path / "run", monkeypatch)
    unseen = found.unseen[(found.unseen["arm"] != "condpdiff") | (found.unseen["statistics"] == "mean")].copy()
    unseen.loc[unseen["arm"] == "condpdiff", "statistics"] = "shared"
    found = Probed(found.swap[found.swap["statistics"] == found.swap["task"]], unseen, 0)
    (swap, contrasts, table), words = tables(found, evaluations, "batch")
    assert STATISTICS_OF_OTHERS not in [row[0] for row in contrasts.rows]
    assert "`normalize.method: batch` all tasks have the same statistics" in swap.caption
    assert "left out among them" in table.caption
    assert "condpdiff (shared statistics)" in words


def test_kinds_without_nonsense_and_without_a_task_left_out_show_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, evaluations = text(tmp_path / "run", monkeypatch)
    swap = found.swap[~found.swap["condition"].isin(["nonsense", "dropped"])]
    (matrix, _, contrasts), words = tables(Probed(swap, found.unseen.iloc[:0], 0), evaluations)
    assert "random words" not in matrix.caption and "dropped" not in matrix.caption
    assert [row[0] for row in contrasts.rows] == [OTHERS, STATISTICS_OF_OTHERS]
    assert "never trained" not in words


def test_a_single_task_has_nothing_to_swap_with_but_nonsense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, evaluations = text(tmp_path / "run", monkeypatch, tasks=("movies",))
    assert verdict(found, evaluations) == [] and effect(found, evaluations) == {}
    (_, contrasts), _ = tables(found, evaluations)
    assert [row[0] for row in contrasts.rows] == ["nonsense", "dropped"]


def test_nothing_probed_nothing_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, evaluations = text(tmp_path / "run", monkeypatch)
    for name, table in (("swap", found.swap), ("unseen", found.unseen)):
        table.iloc[:0].to_csv(ROOT / f"{name}.csv", index=False)
    found = read_probe(ROOT, False)
    assert sections(found, evaluations, "task", load_params()[0].probe) == verdict(found, evaluations) == []
    assert effect(found, evaluations) == {}


@pytest.mark.parametrize("lower", [False, True])
def test_a_lora_without_a_score_counts_as_the_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lower: bool
) -> None:
    found, evaluations = styles(tmp_path / "run", monkeypatch, 0) if lower else text(tmp_path / "run", monkeypatch)
    highest = found.swap["score"].iloc[1:].max()
    found.swap.loc[0, "score"] = float("nan")
    found.swap.to_csv(ROOT / "swap.csv", index=False)
    found = read_probe(ROOT, lower)
    assert found.unscored == 1
    assert found.swap["score"].iloc[0] == pytest.approx(highest if lower else 0)
    assert (
        f"1 LoRA has no score (what it gives is no number); it counts as {'the worst' if lower else '0'}."
        in tables(found, evaluations)[1]
    )


def test_a_missing_cell_or_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = text(tmp_path / "run", monkeypatch)
    swapped = (found.swap["statistics"] == "moods") & (found.swap["task"] == "movies")
    for rows in (found.swap.iloc[1:], found.swap[found.swap["condition"] != "movies"], found.swap[~swapped]):
        rows.to_csv(ROOT / "swap.csv", index=False)
        with pytest.raises(UserError, match=r"^data/probe/swap.csv: not as many rows .*; run `dvc repro` again$"):
            read_probe(ROOT, False)
    (ROOT / "unseen.csv").unlink()
    found.swap.to_csv(ROOT / "swap.csv", index=False)
    with pytest.raises(UserError, match=r"^data/probe/unseen.csv: no such file; run `dvc repro`$"):
        read_probe(ROOT, False)


def test_page_and_metrics_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(build(tmp_path / "run", tasks=FIVE[:4], n=6, v=20, effect=3.0))
    make(*load_params(), Path("report"))
    metrics = json.loads(Path("report/metrics.json").read_text())
    assert metrics["condition_effect"] == pytest.approx(3, abs=0.2)
    for file in ("report.md", "results.md"):
        assert "The condition is **used**: " in Path("report", file).read_text()
    assert "What the condition does" in Path("report/index.html").read_text()
    assert "The statistics **choose the task**: " in Path("report/report.md").read_text()
    assert len(pd.read_csv(ROOT / "swap.csv")) == (4 * 6 + 4 * 3) * 2
