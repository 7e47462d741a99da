"""Asked-for against obtained performance: the curve of the checkpoints, the correlation, and the table."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from condpdiff.report import doses
from condpdiff.report.blocks import Table
from condpdiff.report.tables import Evaluation, read_evaluation
from condpdiff.text.task import load_task


@pytest.fixture
def movies(run: Path) -> Evaluation:
    return read_evaluation(run / "data/eval", "movies", load_task("movies"))


def with_losses(e: Evaluation, by_dose: dict[float, list[float]]) -> Evaluation:
    rows = [("soup", None, 0, 0.3, 80.0)]
    rows += [("condpdiff", p, i, loss, 70.0 + 10 * p) for p, losses in by_dose.items() for i, loss in enumerate(losses)]
    return replace(e, doses=pd.DataFrame(rows, columns=["arm", "asked", "candidate", "loss", "validation"]))


@pytest.mark.parametrize(("kind", "p"), [("rank", [0, 1 / 3, 2 / 3, 1]), ("loss", [0, 0.25, 0.75, 1])])
def test_the_checkpoints_curve_falls_from_the_worst_to_the_best(kind: str, p: list[float]) -> None:
    at, loss = doses.zoo_curve(np.array([0.2, 0.5, 0.1, 0.4]), kind)
    np.testing.assert_allclose(at, p)
    assert loss.tolist() == [0.5, 0.4, 0.2, 0.1]


def test_one_checkpoint_and_equal_losses_have_a_curve() -> None:
    assert doses.zoo_curve(np.array([0.3]), "rank")[0].tolist() == [1]
    assert doses.zoo_curve(np.array([0.3, 0.3]), "loss")[0].tolist() == [1, 1]


def test_correlation_is_one_if_better_is_had_for_the_asking_and_minus_one_the_other_way_round(
    movies: Evaluation,
) -> None:
    assert doses.correlation(with_losses(movies, {0.0: [3.0], 0.5: [2.0], 1.0: [1.0]})) == pytest.approx(1)
    assert doses.correlation(with_losses(movies, {0.0: [1.0], 0.5: [2.0], 1.0: [3.0]})) == pytest.approx(-1)
    assert doses.correlation(with_losses(movies, {0.0: [1.0, 2.0], 1.0: [2.0, 1.0]})) == pytest.approx(0)
    assert np.isnan(doses.correlation(with_losses(movies, {0.5: [1.0]})))


def test_losses_that_are_no_numbers_are_left_out_and_counted(movies: Evaluation) -> None:
    e = with_losses(movies, {0.0: [3.0, np.nan], 1.0: [1.0, 2.0]})
    assert doses.unscored(e) == 1
    assert doses.correlation(e) > 0.8


def test_the_table_has_means_at_three_doses_and_a_dash_for_one_not_asked(movies: Evaluation) -> None:
    e = with_losses(movies, {0.0: [0.6, 0.8], 1.0: [0.2, 0.4]})
    figures, table = doses.blocks([e], {"movies": np.array([0.7, 0.5, 0.3])}, "rank")
    assert isinstance(table, Table)
    assert table.columns[2:6] == ["loss, p = 0", "loss, p = 0.5", "loss, p = 1", "loss, soup"]
    assert table.rows == [["movies", "0.89", "0.700", "–", "0.300", "0.300", "70.0", "–", "80.0"]]


def test_in_racing_there_is_no_validation_score(movies: Evaluation) -> None:
    e = replace(with_losses(movies, {0.0: [0.6], 1.0: [0.2]}), racing=True)
    _, table = doses.blocks([e], {"movies": np.array([0.7, 0.3])}, "rank")
    assert isinstance(table, Table)
    assert table.columns[-1] == "loss, soup" and "validation" not in table.caption


def test_tasks_without_doses_are_left_out(movies: Evaluation) -> None:
    none = replace(movies, name="tweets", doses=movies.doses[:0])
    assert [e.name for e in doses.with_doses([none, movies])] == ["movies"]
    frame = doses.frame([none, movies])
    assert set(frame["task"]) == {"movies"}
    assert frame["asked"].notna().all()
