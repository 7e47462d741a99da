"""The section on the condition: the swap matrix, and what an own condition adds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import opened
from fake_run import build

from condpdiff.common.errors import UserError
from condpdiff.report import condition_section
from condpdiff.report.blocks import Table, Text
from condpdiff.report.condition_section import OTHERS, STATISTICS_OF_OTHERS, Probed, effect, read_probe, verdict

FIVE = ("movies", "tweets", "moods", "four", "five")


Get = Callable[..., tuple[Probed, list[Table], str]]


@pytest.fixture(scope="module")
def roots() -> dict[tuple[object, ...], Path]:
    """Tasks and effect of the condition -> the run; each is built once."""
    return {}


@pytest.fixture
def probed(
    roots: dict[tuple[object, ...], Path], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Get:
    """What a run's probe found, the section's tables and all its paragraphs.

    `edit` changes the table before it is read.
    """

    def get(
        tasks: tuple[str, ...] = FIVE,
        effect: float = 0.0,
        method: str = "task",
        edit: Callable[[pd.DataFrame], pd.DataFrame] = lambda swap: swap,
    ) -> tuple[Probed, list[Table], str]:
        if (tasks, effect) not in roots:
            roots[tasks, effect] = build(tmp_path_factory.mktemp("run") / "run", tasks, n=6, v=20, effect=effect)
        monkeypatch.chdir(roots[tasks, effect])
        spec, params = opened()
        params = params.model_copy(update={"normalize": params.normalize.model_copy(update={"method": method})})
        swap = edit(pd.read_csv("data/probe/swap.csv"))
        monkeypatch.setattr(condition_section, "read_csv", lambda *_: swap.copy())
        found = read_probe(Path("data/probe"))
        blocks = [block for section in condition_section.sections(found, spec, params) for block in section.blocks]
        words = " ".join(block.text for block in blocks if isinstance(block, Text))
        return found, [block for block in blocks if isinstance(block, Table)], words

    return get


def test_the_swap_matrix_has_every_condition_and_marks_the_own_one(probed: Get) -> None:
    _, (swap, statistics, contrasts), _ = probed(effect=5.0)
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
        for j, cell in enumerate(row[1:]):
            assert float(cell) == pytest.approx(90 if i == j else 72.5, abs=0.3)


@pytest.mark.parametrize(("size", "words"), [(5.0, "**chooses the task**"), (-5.0, "works **against the task**")])
def test_the_verdict_says_whether_the_condition_is_used(probed: Get, size: float, words: str) -> None:
    found, _, _ = probed(effect=size)
    line, other = verdict(found)
    assert line.startswith(f"The condition {words}: ") and "95 % interval" in line
    assert other.startswith("The statistics **choose the task**: under a task's own condition, own statistics minus ")
    effects = effect(found)
    assert effects["condition_effect"] == pytest.approx(size, abs=0.2)
    assert effects["statistics_effect"] == pytest.approx(17.5, abs=0.2)


def test_differences_that_chance_explains_are_not_measurable(probed: Get) -> None:
    def edit(swap: pd.DataFrame) -> pd.DataFrame:
        swap["score"] = 80.0
        for name, score in (("movies", 81.0), ("moods", 79.2)):
            swap.loc[(swap[["condition", "statistics", "task"]] == name).all(axis=1), "score"] = score
        return swap

    found, _, _ = probed(edit=edit)
    lines = verdict(found)
    assert lines[0].startswith("The condition is **not measurably used**: ")
    assert lines[1].startswith("The statistics are **not measurably used**: ")


def test_few_tasks_have_figures_but_no_interval_and_no_verdict(probed: Get) -> None:
    found, _, words = probed(("movies", "tweets"), 5.0)
    lines = verdict(found)
    assert lines[0].startswith("Whether the condition is used **can't be told** from 2 tasks: ")
    assert lines[1].startswith("Whether the statistics are used **can't be told** from 2 tasks: ")
    assert "interval" not in "".join(lines) and all("; by task +" in line for line in lines)
    assert "95 %" not in words and "**" not in words


def test_of_three_tasks_the_condition_chooses_where_each_is_best_under_its_own(probed: Get) -> None:
    three = ("movies", "tweets", "moods")
    found, _, _ = probed(three, 5.0)
    says = "The condition **chooses the task**, on each of 3 tasks (too few for an interval): "
    assert verdict(found)[0].startswith(says)
    found, _, _ = probed(three)
    assert verdict(found)[0].startswith("Whether the condition is used **can't be told** from 3 tasks: ")


def test_statistics_that_all_tasks_share_are_said_to_be(probed: Get) -> None:
    own = lambda swap: swap[swap["statistics"] == swap["task"]]  # noqa: E731
    _, (swap, contrasts), _ = probed(method="batch", edit=own)
    assert STATISTICS_OF_OTHERS not in [row[0] for row in contrasts.rows]
    assert "`normalize.method: batch` all tasks have the same statistics" in swap.caption


def test_what_was_not_probed_is_not_shown(probed: Get) -> None:
    of_tasks = lambda swap: swap[~swap["condition"].isin(["nonsense", "dropped"])]  # noqa: E731
    _, (matrix, _, contrasts), _ = probed(edit=of_tasks)
    assert "random words" not in matrix.caption and "dropped" not in matrix.caption
    assert [row[0] for row in contrasts.rows] == [OTHERS, STATISTICS_OF_OTHERS]
    found, (_, contrasts), _ = probed(("movies",))  # nothing to swap with
    assert verdict(found) == [] and effect(found) == {}
    assert [row[0] for row in contrasts.rows] == ["nonsense", "dropped"]
    found, tables, words = probed(edit=lambda swap: swap.iloc[:0])
    assert (tables, words) == ([], "") and verdict(found) == [] and effect(found) == {}


def test_a_lora_without_a_score_counts_as_0(probed: Get) -> None:
    def edit(swap: pd.DataFrame) -> pd.DataFrame:
        swap.loc[[0, 1], "score"] = np.nan  # both of the first cell
        return swap

    found, _, words = probed(edit=edit)
    assert found.unscored == 2 and found.swap.iloc[0] == 0
    assert "2 LoRAs without a score (what it gives is no number): counted as 0." in words


def test_a_missing_cell_is_one_line(run: Path) -> None:
    path = run / "data/probe/swap.csv"
    swap = pd.read_csv(path)
    swapped = (swap["statistics"] == "tweets") & (swap["task"] == "movies")
    for rows in (swap.iloc[1:], swap[swap["condition"] != "movies"], swap[~swapped]):
        rows.to_csv(path, index=False)
        with pytest.raises(UserError, match=r"^data/probe/swap.csv: not as many rows .*; run `dvc repro` again$"):
            read_probe(Path("data/probe"))
