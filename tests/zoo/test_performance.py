"""Performance of checkpoints: losses on fixed rows, and p in 0..1 from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from condpdiff.zoo.performance import load_performance, loss_rows, performance_of, rate, select_rows
from condpdiff.zoo.settings import Performance
from tests.messages import message_of


class Scorer:
    """Merged with [loss - 1], or any such theta, it has losses of that mean on the rows that rate."""

    def merge(self, theta: torch.Tensor) -> None:
        self.theta = theta

    def losses(self, split: str) -> np.ndarray:
        return {"loss": np.array([float(self.theta), float(self.theta) + 2])}[split]


def table(losses: list[float], every: int = 1) -> pd.DataFrame:
    scorer: Any = Scorer()
    return rate(scorer, torch.tensor(losses)[:, None] - 1, every, "test")


def test_every_so_many_th_and_the_last_are_rated_and_between_them_the_loss_is_interpolated() -> None:
    found = table([4, 9, 9, 9, 0, 3], 4)
    assert found["checkpoint"].tolist() == [0, 1, 2, 3, 4, 5]
    assert found["loss"].tolist() == [4, 3, 2, 1, 0, 3]
    assert found["rated"].tolist() == [1, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("kind", "losses", "expected"),
    [
        ("rank", [0.9, 0.1, 0.5, 0.11, 7.0], [0.25, 1.0, 0.5, 0.75, 0.0]),  # evenly spaced, whatever the losses
        ("rank", [2.0, 1.0, 1.0, 0.0], [0.0, 0.5, 0.5, 1.0]),  # equal losses share a rank
        ("loss", [1.0, 3.0, 2.5], [1.0, 0.0, 0.25]),  # linear
        ("rank", [3.0], [1.0]),  # the only one is the best
        ("loss", [2.0, 2.0], [1.0, 1.0]),
    ],
)
def test_performance_goes_from_the_worst_to_the_best(kind: str, losses: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(performance_of(np.array(losses), kind), expected)


def test_rows_that_rate_and_rows_that_select_are_apart_and_at_most_all() -> None:
    held_out = pd.DataFrame({"text": list("abcdefgh")})
    assert list(loss_rows(held_out, Performance(rows=3))["text"]) == list("abc")
    assert list(select_rows(held_out, Performance(rows=3), 4)["text"]) == list("defg")
    assert list(select_rows(held_out, Performance(rows=3), 100)["text"]) == list("defgh")


def test_ranks_are_among_the_last_checkpoints_alone_and_none_reads_nothing(tmp_path: Path) -> None:
    table([0, 9, 3, 2, 1]).to_csv(tmp_path / "a.csv", index=False)
    found = load_performance(tmp_path, {"a": 3}, "rank")
    assert found is not None and found["a"].tolist() == [0.0, 0.5, 1.0]
    assert load_performance(tmp_path, {"b": 2}, "none") is None


def test_too_few_checkpoints_absent_and_broken_tables_are_named(tmp_path: Path) -> None:
    assert "a.csv: no such file" in message_of(load_performance, tmp_path, {"a": 3}, "rank")
    wrong = {
        "checkpoint,loss\n0,1\n1,2\n": "a.csv: found 2 checkpoints, needed: 3",
        "checkpoint,loss\n0,\n": "a.csv: found columns checkpoint, loss, needed: ",
        "": "a.csv: not a readable table",
    }
    for content, says in wrong.items():
        (tmp_path / "a.csv").write_text(content)
        assert says in message_of(load_performance, tmp_path, {"a": 3}, "rank")
