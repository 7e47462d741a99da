"""Performance of checkpoints: losses on fixed rows, and p in 0..1 from them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from condpdiff.common.errors import UserError
from condpdiff.zoo.performance import (
    load_performance,
    loss_rows,
    losses_of_all,
    performance_of,
    rated,
    read_performance,
    select_rows,
)
from condpdiff.zoo.settings import Performance


def write(folder: Path, losses: list[float], task: str = "a") -> Path:
    path = folder / f"{task}.csv"
    losses_of_all(dict(enumerate(losses)), len(losses)).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("count", "every", "expected"),
    [(7, 1, [0, 1, 2, 3, 4, 5, 6]), (7, 3, [0, 3, 6]), (8, 3, [0, 3, 6, 7]), (4, 9, [0, 3]), (1, 2, [0])],
)
def test_every_so_many_th_checkpoint_is_rated_and_the_last_one(count: int, every: int, expected: list[int]) -> None:
    assert rated(count, every) == expected


def test_between_rated_checkpoints_the_loss_is_interpolated_and_all_have_a_row(tmp_path: Path) -> None:
    table = losses_of_all({0: 4.0, 4: 0.0, 5: 3.0}, 6)
    table.to_csv(tmp_path / "a.csv", index=False)
    found = read_performance(tmp_path / "a.csv")
    pd.testing.assert_frame_equal(found, table)
    assert found["checkpoint"].tolist() == [0, 1, 2, 3, 4, 5]
    assert found["loss"].tolist() == [4, 3, 2, 1, 0, 3]
    assert found["rated"].tolist() == [1, 0, 0, 0, 1, 1]


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
