"""A race keeps who may be best, drops the rest early, and counts what it saves; the loop's tests are its domains'."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from condpdiff.evaluate.racing import ends, parts, race, survivors
from tests.stand_ins import make_rows

THETA = torch.arange(8.0)[:, None]  # [8, 1]


class FakeScorer:
    """Puts out theta plus noise of the row, whose loss it is: the first candidate is the best by far."""

    def __init__(self, count: int) -> None:
        self.noise = np.random.default_rng(0).normal(0, 0.01, count)
        names = [f"select {a}:{b}" for a, b in pairwise([0, *ends(count)])]
        self.rows = {"select": count, "loss": 3} | dict.fromkeys(names, 0)
        self.seen: list[tuple[float, str]] = []

    def merge(self, theta: torch.Tensor) -> None:
        self.theta = float(theta)

    def outputs(self, split: str) -> np.ndarray:
        self.seen.append((self.theta, split))
        start, end = map(int, split.partition(" ")[2].split(":"))
        return self.theta + self.noise[start:end]

    def losses_of(self, outputs: np.ndarray, split: str) -> np.ndarray:
        return outputs


def run(vectors: torch.Tensor, z: float) -> SimpleNamespace:
    scorer: Any = FakeScorer(32)
    return SimpleNamespace(found=race(scorer, vectors, "select", z, "test"), scorer=scorer)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(96, [12, 24, 48, 96]), (20, [2, 5, 10, 20]), (8, [2, 4, 8]), (3, [2, 3]), (2, [2]), (1, [1])],
)
def test_rounds_end_at_growing_shares_of_the_rows(rows: int, expected: list[int]) -> None:
    assert ends(rows) == expected


@pytest.mark.parametrize("count", [1, 3, 96])
def test_parts_are_the_rows_in_their_order(count: int) -> None:
    rows = make_rows(count, 0).sample(count, random_state=1)
    found = parts("select", rows)
    pd.testing.assert_frame_equal(pd.concat(found.values()), rows)
    assert list(found) == [f"select {a}:{b}" for a, b in pairwise([0, *ends(count)])]


def test_clearly_worse_candidates_of_the_worse_half_drop_out() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, (6, 40))
    losses = np.array([0.5, 0.1, 0.6, 0.2, 0.9, 0.3])[:, None] + noise
    assert survivors(losses, 1.0).tolist() == [1, 3, 5]


def test_candidates_that_the_rows_cannot_tell_from_the_leader_stay_up_to_three_quarters() -> None:
    losses = np.random.default_rng(0).normal(1, 1, (8, 5))
    assert len(survivors(losses, 0.0)) == 4
    order = np.argsort(losses.mean(1))
    assert set(survivors(losses, 100.0)) == set(order[:6].tolist())


def test_the_difference_is_paired_row_by_row() -> None:
    """Rows differ far more than candidates do; a candidate worse on every row is told apart all the same."""
    rows = np.random.default_rng(0).uniform(0, 10, 20)
    losses = np.stack([rows, rows + 0.01, rows + 0.02, rows + 0.03])
    assert survivors(losses, 1.0).tolist() == [0, 1]


def test_equal_candidates_stay_in_their_order_and_losses_that_are_no_numbers_drop_out_first() -> None:
    assert survivors(np.ones((4, 5)), 0.0).tolist() == [0, 1, 2]
    losses = np.ones((4, 3)) + np.arange(3)
    losses[0, 1] = np.nan
    assert survivors(losses, 100.0).tolist() == [1, 2, 3]
    assert survivors(np.full((4, 3), np.nan), 1.0).tolist() == [0, 1]


@pytest.mark.parametrize(("count", "least"), [(1, 1), (2, 1), (3, 2), (5, 3)])
def test_the_better_half_is_rounded_up(count: int, least: int) -> None:
    losses = np.arange(count)[:, None] + np.random.default_rng(0).uniform(0, 1e-6, (count, 4))
    assert survivors(losses, 1.0).tolist() == list(range(least))


def test_only_rows_seen_are_paid_for_and_the_best_sees_them_all() -> None:
    for vectors, best in ((THETA, 0), (THETA.flip(0), 7)):
        made = run(vectors, 0.0)
        assert sorted(map(len, made.found)) == [4] * 4 + [8] * 2 + [16, 32]
        assert len(made.found[best]) == 32
        assert len(made.scorer.seen) == 8 + 4 + 2 + 1
        for outputs, theta in zip(made.found, vectors, strict=True):
            assert outputs.tolist() == (float(theta) + made.scorer.noise)[: len(outputs)].tolist()


def test_one_candidate_sees_all_rows() -> None:
    assert list(map(len, run(THETA[:1], 1.0).found)) == [32]
