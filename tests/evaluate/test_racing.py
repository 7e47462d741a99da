"""A race keeps who may be best and drops the rest early; what it scores and saves: see test_candidates."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from condpdiff.evaluate.racing import parts, survivors
from tests.stand_ins import make_rows


@pytest.mark.parametrize(("count", "expected"), [(96, [12, 24, 48, 96]), (20, [2, 5, 10, 20]), (3, [2, 3]), (1, [1])])
def test_rounds_end_at_growing_shares_of_the_rows_in_their_order(count: int, expected: list[int]) -> None:
    rows = make_rows(count, 0).sample(count, random_state=1)
    found = parts("select", rows)
    pd.testing.assert_frame_equal(pd.concat(found.values()), rows)
    assert list(found) == [f"select {a}:{b}" for a, b in pairwise([0, *expected])]


@pytest.mark.parametrize(("count", "least"), [(1, 1), (2, 1), (3, 2), (5, 3)])
def test_clearly_worse_candidates_drop_out_but_of_the_better_half(count: int, least: int) -> None:
    """The difference is paired: rows differ far more than candidates do, and each is worse on every row."""
    rows = np.random.default_rng(0).uniform(0, 10, 20)
    losses = rows + 0.01 * np.arange(count)[:, None]
    assert survivors(losses, 1.0).tolist() == list(range(least))


def test_candidates_that_the_rows_can_not_tell_from_the_leader_stay_up_to_three_quarters() -> None:
    losses = np.random.default_rng(0).normal(1, 1, (8, 5))
    order = np.argsort(losses.mean(1))
    assert set(survivors(losses, 0.0).tolist()) == set(order[:4].tolist())
    assert set(survivors(losses, 100.0).tolist()) == set(order[:6].tolist())
    assert survivors(np.ones((4, 5)), 0.0).tolist() == [0, 1, 2]  # equal ones, in their order
    losses = np.ones((4, 3)) + np.arange(3)
    losses[0, 1] = np.nan  # no number: drops out first
    assert survivors(losses, 100.0).tolist() == [1, 2, 3]
    assert survivors(np.full((4, 3), np.nan), 1.0).tolist() == [0, 1]
