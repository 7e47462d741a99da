"""Asked-for performance, where weights lie, what the condition does, and studies."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from conftest import Made, tables
from fake_run import write_probe, write_study

from condpdiff.common.errors import UserError
from condpdiff.experiments.study_plan import load_study
from condpdiff.experiments.study_results import Results, long_csv
from condpdiff.report import condition_section, doses_section, novelty_section, studies_section
from condpdiff.report.blocks import Figures, Table
from condpdiff.report.condition_section import OTHERS, STATISTICS_OF_OTHERS, Probed, effect, read_probe, verdict
from condpdiff.report.evaluation import Evaluation

STUDIES = Path("docs/studies")


def with_losses(e: Evaluation, by_dose: dict[float, list[float]]) -> Evaluation:
    rows = [("soup", None, 0, 0.3, 80.0)]
    rows += [("condpdiff", p, i, loss, 70.0 + 10 * p) for p, losses in by_dose.items() for i, loss in enumerate(losses)]
    return replace(e, doses=pd.DataFrame(rows, columns=["arm", "asked", "candidate", "loss", "validation"]))


def test_the_table_has_means_at_three_doses_and_a_dash_for_one_not_asked(movies: Evaluation) -> None:
    found = doses_section.table([with_losses(movies, {0.0: [0.6, 0.8], 1.0: [0.2, 0.4]})])
    assert found.columns[2:6] == ["loss, p = 0", "loss, p = 0.5", "loss, p = 1", "loss, soup"]
    assert found.rows == [["movies", "0.89", "0.700", "–", "0.300", "0.300", "70.0", "–", "80.0"]]
    falling = with_losses(movies, {0.0: [3.0, np.nan], 0.5: [2.0], 1.0: [1.0]})
    assert doses_section.table([falling]).rows[0][1] == "1.00"


def test_a_narrow_spread_is_marked_and_one_step_of_fine_tuning_stands_below(text: Made, undrawn: None) -> None:
    spread, distance, overlap = tables(novelty_section.section(text.evaluations, text.params).blocks)
    assert spread.rows[-1] == ["condpdiff", "0.90", "0.31 (narrow)"]
    assert distance.rows[-1][0] == "one step of fine-tuning" and distance.foot == 1
    assert overlap.rows[-1][2] == "–"  # regression has no mistakes


def test_overlap_of_mistakes_leaves_out_the_checkpoint_itself(text: Made, movies: Evaluation) -> None:
    rows = [("original", 0), ("original", 1), ("condpdiff", 0)]
    scores, predictions = pd.DataFrame(rows, columns=["arm", "candidate"]), np.array([[1, 1, 0], [0, 1, 1], [1, 1, 0]])
    e = replace(movies, scores=scores, predictions=predictions, labels=np.zeros(3))
    assert novelty_section.wrong_overlaps(e) == pytest.approx([1 / 3, 1 / 3, 1])
    alone = replace(e, scores=scores.drop(1).reset_index(), predictions=predictions[[0, 2]])
    assert novelty_section.wrong_overlaps(alone) == pytest.approx([np.nan, 1], nan_ok=True)  # has no other
    of_classes, of_numbers = map(novelty_section.wrong_overlaps, text.evaluations)
    assert ((of_classes >= 0) & (of_classes <= 1)).all() and np.isnan(of_numbers).all()


FIVE = ("movies", "tweets", "moods", "four", "five")
Edit = Callable[[pd.DataFrame], pd.DataFrame]


def probed(tasks: tuple[str, ...] = FIVE, effect: float = 0.0, edit: Edit = lambda swap: swap) -> Probed:
    """What a probe found; `edit` changes its table before it is read."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "swap.csv")
        write_probe(path.parent, tasks, effect)
        path.write_text(edit(pd.read_csv(path)).to_csv(index=False))
        return read_probe(path.parent)


def shown(found: Probed, method: str = "task") -> list[Table]:
    (section,) = condition_section.sections(found, "accuracy", method)
    return tables(section.blocks)


def first(table: Table) -> list[object]:
    return [row[0] for row in table.rows]


def test_the_swap_matrix_has_every_condition_and_marks_the_own_one() -> None:
    swap, statistics, contrasts = shown(probed(effect=5.0))
    assert swap.columns == ["condition", *FIVE] and first(swap) == [*FIVE, "nonsense", "dropped"]
    assert swap.bold == statistics.bold == {(i, i + 1) for i in range(5)} and first(statistics) == list(FIVE)
    for table, other in ((swap, 85), (statistics, 72.5)):
        for i, row in enumerate(table.rows):
            expected = [90 if i == j else other for j in range(5)]
            assert [float(cell) for cell in row[1:]] == pytest.approx(expected, abs=0.3)
    assert "Mean score of 2 LoRAs a cell" in swap.caption and "nonsense: descriptions of random words." in swap.caption
    assert first(contrasts) == [OTHERS, "nonsense", "dropped", STATISTICS_OF_OTHERS]
    for row, gain in zip(contrasts.rows, (5, 5, 5, 17.5), strict=True):
        assert [float(cell) for cell in row[1:6]] == pytest.approx([gain] * 5, abs=0.4)


@pytest.mark.parametrize(
    ("tasks", "size", "says"),
    [
        (5, 5.0, "The condition **chooses the task**: "),
        (5, -5.0, "The condition works **against the task**: "),
        (3, 5.0, "The condition **chooses the task**, on each of 3 tasks (too few for an interval): "),
        (3, 0.0, "Whether the condition is used **can't be told** from 3 tasks: "),
        (2, 5.0, "Whether the condition is used **can't be told** from 2 tasks: "),
    ],
)
def test_the_verdict_says_whether_the_condition_is_used(tasks: int, size: float, says: str) -> None:
    found = probed(FIVE[:tasks], size)
    line, other = verdict(found)
    assert line.startswith(says) and ("95 % interval" in line) is (tasks == 5) is ("; by task " not in line)
    assert "own condition, own statistics minus the other tasks' is " in other
    assert effect(found) == pytest.approx({"condition_effect": size, "statistics_effect": 17.5}, abs=0.3)
    assert ("[" in str(shown(found)[-1].rows[0][-1])) is (tasks == 5)


def test_differences_that_chance_explains_are_not_measurable() -> None:
    def edit(swap: pd.DataFrame) -> pd.DataFrame:
        swap["score"] = 80.0
        for name, score in (("movies", 81.0), ("moods", 79.2)):
            swap.loc[(swap[["condition", "statistics", "task"]] == name).all(axis=1), "score"] = score
        return swap

    condition, statistics = verdict(probed(edit=edit))
    assert condition.startswith("The condition is **not measurably used**: ")
    assert statistics.startswith("The statistics are **not measurably used**: ")


def test_what_was_not_probed_is_not_shown_and_statistics_that_all_tasks_share_are_said_to_be() -> None:
    swap, contrasts = shown(probed(edit=lambda swap: swap[swap["statistics"] == swap["task"]]), "batch")
    assert STATISTICS_OF_OTHERS not in first(contrasts)
    assert "`normalize.method: batch` all tasks have the same statistics" in swap.caption
    matrix, _, contrasts = shown(probed(edit=lambda swap: swap[~swap["condition"].isin(["nonsense", "dropped"])]))
    assert "random words" not in matrix.caption and "dropped" not in matrix.caption
    assert first(contrasts) == [OTHERS, STATISTICS_OF_OTHERS]
    one = probed(("movies",))  # nothing to swap with
    assert verdict(one) == [] and effect(one) == {} and first(shown(one)[1]) == ["nonsense", "dropped"]
    none = probed(edit=lambda swap: swap.iloc[:0])
    assert condition_section.sections(none, "accuracy", "task") == [] and verdict(none) == [] and effect(none) == {}


def test_a_lora_without_a_score_counts_as_0() -> None:
    found = probed(edit=lambda swap: swap.assign(score=swap["score"].mask(swap.index < 2)))  # both of the first cell
    assert found.unscored == 2 and found.conditions.iloc[0, 0] == 0
    assert "2 LoRAs without a score (what it gives is no number): counted as 0." in shown(found)[0].caption


@pytest.mark.parametrize(
    "edit",
    [
        lambda swap: swap.iloc[1:],
        lambda swap: swap[swap["condition"] != "movies"],
        lambda swap: swap[~((swap["statistics"] == "tweets") & (swap["task"] == "movies"))],
    ],
)
def test_a_missing_cell_is_one_line(edit: Edit) -> None:
    with pytest.raises(UserError, match=r"swap.csv: not as many rows .*; run `dvc repro` again$"):
        probed(edit=edit)


def test_every_study_and_size_has_a_table_of_means_over_seeds_and_what_is_missing_is_a_dash_or_named(run: Path) -> None:
    assert studies_section.sections() == []
    write_study(run)
    rows = pd.read_csv(STUDIES / "table4b.csv")
    rows = rows[(rows["seed"] == 0) & (rows["arm"] == "condpdiff_mean")]
    rows.assign(size="paper").to_csv(STUDIES / "more.csv", index=False)
    (section,) = studies_section.sections()
    more, table, figures = section.blocks
    assert isinstance(more, Table) and isinstance(table, Table) and isinstance(figures, Figures)
    assert table.columns == ["row", "seeds", "condpdiff_mean", "std", "condpdiff", "minus soup", "paper"]
    assert table.rows[0] == ["one_hot", "2", "80.50", "0.71", "81.50", "+1.50", "79.17"]
    assert "`table4b` at the size `embedded`" in table.caption and "`paper`" in more.caption
    assert more.rows[0] == ["one_hot", "1", "80.00", "–", "–", "–", "–"]
    assert [image.name for image in figures.images] == ["study-table4b-paper", "study-table4b-embedded"]
    (STUDIES / "noise.csv").write_text("study,row\nnoise,a\n")
    with pytest.raises(UserError, match=r"docs/studies/noise.csv: no column 'size'"):
        studies_section.sections()


def test_what_study_show_writes_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any experiment of it has run."""
    written = long_csv(Results(load_study("table4b"), {}, []))
    monkeypatch.chdir(tmp_path)
    STUDIES.mkdir(parents=True)
    (STUDIES / "table4b.csv").write_text(written)
    (table,) = tables(studies_section.sections()[0].blocks)
    assert table.rows and all(list(row[1:6]) == ["0", "–", "–", "–", "–"] and float(row[6]) > 50 for row in table.rows)
