"""The section on the condition: the swap matrix, and what an own condition adds."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from fake_run import write_probe

from condpdiff.common.errors import UserError
from condpdiff.report.blocks import Table
from condpdiff.report.condition_section import (
    OTHERS,
    STATISTICS_OF_OTHERS,
    Probed,
    effect,
    read_probe,
    sections,
    verdict,
)  # fmt: skip

FIVE = ("movies", "tweets", "moods", "four", "five")
Get = Callable[..., Probed]


@pytest.fixture
def probed(tmp_path: Path) -> Get:
    """What a probe found; `edit` changes its table before it is read."""

    def get(
        tasks: tuple[str, ...] = FIVE,
        effect: float = 0.0,
        edit: Callable[[pd.DataFrame], pd.DataFrame] = lambda swap: swap,
    ) -> Probed:
        write_probe(tmp_path, tasks, effect)
        edit(pd.read_csv(tmp_path / "swap.csv")).to_csv(tmp_path / "swap.csv", index=False)
        return read_probe(tmp_path)

    return get


def tables(found: Probed, method: str = "task") -> list[Table]:
    (section,) = sections(found, "accuracy", "random words", method)
    return [block for block in section.blocks if isinstance(block, Table)]


def first(table: Table) -> list[object]:
    return [row[0] for row in table.rows]


def test_the_swap_matrix_has_every_condition_and_marks_the_own_one(probed: Get) -> None:
    swap, statistics, contrasts = tables(probed(effect=5.0))
    assert swap.columns == ["condition", *FIVE] and first(swap) == [*FIVE, "nonsense", "dropped"]
    assert swap.bold == statistics.bold == {(i, i + 1) for i in range(5)} and first(statistics) == list(FIVE)
    for table, other in ((swap, 85), (statistics, 72.5)):
        for i, row in enumerate(table.rows):
            expected = [90 if i == j else other for j in range(5)]
            assert [float(cell) for cell in row[1:]] == pytest.approx(expected, abs=0.3)
    assert "Mean score of 2 LoRAs a cell" in swap.caption and "nonsense: random words." in swap.caption
    assert first(contrasts) == [OTHERS, "nonsense", "dropped", STATISTICS_OF_OTHERS]
    for row, gain in zip(contrasts.rows, (5, 5, 5, 17.5), strict=True):
        assert [float(cell) for cell in row[1:6]] == pytest.approx([gain] * 5, abs=0.4)


@pytest.mark.parametrize(("size", "words"), [(5.0, "**chooses the task**"), (-5.0, "works **against the task**")])
def test_the_verdict_says_whether_the_condition_is_used(probed: Get, size: float, words: str) -> None:
    found = probed(effect=size)
    line, other = verdict(found)
    assert line.startswith(f"The condition {words}: ") and "95 % interval" in line
    assert other.startswith("The statistics **choose the task**: under a task's own condition, own statistics minus ")
    assert effect(found) == pytest.approx({"condition_effect": size, "statistics_effect": 17.5}, abs=0.2)


def test_differences_that_chance_explains_are_not_measurable(probed: Get) -> None:
    def edit(swap: pd.DataFrame) -> pd.DataFrame:
        swap["score"] = 80.0
        for name, score in (("movies", 81.0), ("moods", 79.2)):
            swap.loc[(swap[["condition", "statistics", "task"]] == name).all(axis=1), "score"] = score
        return swap

    condition, statistics = verdict(probed(edit=edit))
    assert condition.startswith("The condition is **not measurably used**: ")
    assert statistics.startswith("The statistics are **not measurably used**: ")


def test_few_tasks_have_figures_but_no_interval_and_no_verdict(probed: Get) -> None:
    found = probed(FIVE[:2], 5.0)
    condition, statistics = verdict(found)
    assert condition.startswith("Whether the condition is used **can't be told** from 2 tasks: ")
    assert statistics.startswith("Whether the statistics are used **can't be told** from 2 tasks: ")
    for line in (condition, statistics):
        assert "interval" not in line and "; by task +" in line
    assert "[" not in str(tables(found)[-1].rows[0][-1])


def test_of_three_tasks_the_condition_chooses_where_each_is_best_under_its_own(probed: Get) -> None:
    says = "The condition **chooses the task**, on each of 3 tasks (too few for an interval): "
    assert verdict(probed(FIVE[:3], 5.0))[0].startswith(says)
    assert verdict(probed(FIVE[:3]))[0].startswith("Whether the condition is used **can't be told** from 3 tasks: ")


def test_statistics_that_all_tasks_share_are_said_to_be(probed: Get) -> None:
    swap, contrasts = tables(probed(edit=lambda swap: swap[swap["statistics"] == swap["task"]]), "batch")
    assert STATISTICS_OF_OTHERS not in first(contrasts)
    assert "`normalize.method: batch` all tasks have the same statistics" in swap.caption


def test_what_was_not_probed_is_not_shown(probed: Get) -> None:
    matrix, _, contrasts = tables(probed(edit=lambda swap: swap[~swap["condition"].isin(["nonsense", "dropped"])]))
    assert "random words" not in matrix.caption and "dropped" not in matrix.caption
    assert first(contrasts) == [OTHERS, STATISTICS_OF_OTHERS]
    one = probed(("movies",))  # nothing to swap with
    assert verdict(one) == [] and effect(one) == {} and first(tables(one)[1]) == ["nonsense", "dropped"]
    none = probed(edit=lambda swap: swap.iloc[:0])
    assert sections(none, "accuracy", "", "task") == [] and verdict(none) == [] and effect(none) == {}


def test_a_lora_without_a_score_counts_as_0(probed: Get) -> None:
    found = probed(edit=lambda swap: swap.assign(score=swap["score"].mask(swap.index < 2)))  # both of the first cell
    assert found.unscored == 2 and found.conditions.iloc[0, 0] == 0
    assert "2 LoRAs without a score (what it gives is no number): counted as 0." in tables(found)[0].caption


@pytest.mark.parametrize(
    "edit",
    [
        lambda swap: swap.iloc[1:],
        lambda swap: swap[swap["condition"] != "movies"],
        lambda swap: swap[~((swap["statistics"] == "tweets") & (swap["task"] == "movies"))],
    ],
)
def test_a_missing_cell_is_one_line(probed: Get, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    with pytest.raises(UserError, match=r"swap.csv: not as many rows .*; run `dvc repro` again$"):
        probed(edit=edit)
