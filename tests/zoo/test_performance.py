"""Performance of checkpoints: losses on fixed rows, and p in 0..1 from them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from condpdiff.common.errors import UserError
from condpdiff.zoo.performance import load_performance, loss_rows, performance_of, read_performance, select_rows
from condpdiff.zoo.settings import Performance


def write(folder: Path, losses: list[float], task: str = "a") -> Path:
    path = folder / f"{task}.csv"
    pd.DataFrame({"checkpoint": range(len(losses)), "loss": losses}).to_csv(path, index=False)
    return path


def test_rank_is_evenly_spaced_from_worst_to_best_whatever_the_losses() -> None:
    p = performance_of(np.array([0.9, 0.1, 0.5, 0.11, 7.0]), "rank")
    np.testing.assert_allclose(p, [0.25, 1.0, 0.5, 0.75, 0.0])


def test_equal_losses_share_a_rank() -> None:
    p = performance_of(np.array([2.0, 1.0, 1.0, 0.0]), "rank")
    np.testing.assert_allclose(p, [0.0, 0.5, 0.5, 1.0])


def test_loss_is_linear_from_worst_to_best() -> None:
    p = performance_of(np.array([1.0, 3.0, 2.5]), "loss")
    np.testing.assert_allclose(p, [1.0, 0.0, 0.25])


@pytest.mark.parametrize(("kind", "losses", "expected"), [("rank", [3.0], [1.0]), ("loss", [2.0, 2.0], [1.0, 1.0])])
def test_nothing_to_compare_is_the_best(kind: str, losses: list[float], expected: list[float]) -> None:
    assert performance_of(np.array(losses), kind).tolist() == expected


def test_rows_that_rate_and_rows_that_select_are_apart_and_at_most_all() -> None:
    held_out = pd.DataFrame({"text": list("abcdefgh")})
    assert list(loss_rows(held_out, Performance(rows=3))["text"]) == list("abc")
    assert list(select_rows(held_out, Performance(rows=3), 4)["text"]) == list("defg")
    assert list(select_rows(held_out, Performance(rows=3), 100)["text"]) == list("defgh")


def test_ranks_are_among_the_last_checkpoints_alone(tmp_path: Path) -> None:
    write(tmp_path, [0.0, 9.0, 3.0, 2.0, 1.0])
    assert load_performance(tmp_path, {"a": 3}, "rank")["a"].tolist() == [0.0, 0.5, 1.0]


def test_none_reads_nothing(tmp_path: Path) -> None:
    assert load_performance(tmp_path, {"a": 2}, "none") is None


def test_too_few_checkpoints_absent_and_broken_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.csv: no such file"):
        load_performance(tmp_path, {"a": 2}, "rank")
    path = write(tmp_path, [1.0, 2.0])
    with pytest.raises(UserError, match=r"a.csv: found 2 checkpoints, needed: 3"):
        load_performance(tmp_path, {"a": 3}, "rank")
    path.write_text("checkpoint,loss\n0,\n")
    with pytest.raises(UserError, match=r"a.csv: found columns checkpoint, loss, needed: .* numbers"):
        read_performance(path)
    path.write_text("")
    with pytest.raises(UserError, match=r"a.csv: not a readable table"):
        read_performance(path)
