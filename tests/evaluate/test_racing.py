"""A race keeps who may be best, drops the rest early, and counts what it saves."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from condpdiff.evaluate.racing import ends, parts, race, survivors
from condpdiff.text.score import Scorer
from condpdiff.zoo.checkpoints import Zoo
from tests.stand_ins import make_rows, make_task, make_zoo


@pytest.fixture
def zoo(base) -> Zoo:
    return make_zoo(base("bert"), "bert", count=8)[0]


@pytest.fixture
def scorer(base, zoo: Zoo) -> Scorer:
    rows = make_rows(32, 2).sample(32, random_state=0)
    return Scorer(base("bert"), zoo, make_task(), {"select": rows} | parts("select", rows), 64)


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
    assert len(survivors(losses, 100.0)) == 6
    assert len(survivors(losses, 0.0)) == 4
    order = np.argsort(losses.mean(1))
    assert set(survivors(losses, 100.0)) == set(order[:6].tolist())


def test_the_difference_is_paired_row_by_row() -> None:
    """Rows differ far more than candidates do; a candidate worse on every row is told apart all the same."""
    rows = np.random.default_rng(0).uniform(0, 10, 20)
    losses = np.stack([rows, rows + 0.01, rows + 0.02, rows + 0.03])
    assert survivors(losses, 1.0).tolist() == [0, 1]


def test_equal_candidates_stay_in_their_order() -> None:
    assert survivors(np.ones((4, 5)), 0.0).tolist() == [0, 1, 2]


def test_losses_that_are_no_numbers_drop_out_first() -> None:
    losses = np.ones((4, 3)) + np.arange(3)
    losses[0, 1] = np.nan
    assert survivors(losses, 100.0).tolist() == [1, 2, 3]
    assert survivors(np.full((4, 3), np.nan), 1.0).tolist() == [0, 1]


@pytest.mark.parametrize(("count", "least"), [(1, 1), (2, 1), (3, 2), (5, 3)])
def test_the_better_half_is_rounded_up(count: int, least: int) -> None:
    losses = np.arange(count)[:, None] + np.random.default_rng(0).uniform(0, 1e-6, (count, 4))
    assert survivors(losses, 1.0).tolist() == list(range(least))


def test_finalists_have_the_predictions_of_the_whole_split(scorer: Scorer, zoo: Zoo) -> None:
    runners = race(scorer, zoo.theta, "select", 1.0, "test")
    finalists = [i for i, runner in enumerate(runners) if runner.rows == 32]
    assert 1 <= len(finalists) < 8
    for i, runner in enumerate(runners):
        scorer.merge(zoo.theta[i])
        assert runner.predictions.tolist() == scorer.predict("select")[: runner.rows].tolist()


def test_the_candidate_of_the_lowest_loss_by_far_gets_to_the_end(scorer: Scorer, zoo: Zoo) -> None:
    losses = []
    for theta in zoo.theta:
        scorer.merge(theta)
        losses.append(scorer.losses("select").mean())
    runners = race(scorer, zoo.theta, "select", 2.0, "test")
    assert runners[int(np.argmin(losses))].rows == 32


def test_only_rows_seen_are_paid_for(scorer: Scorer, zoo: Zoo) -> None:
    runners = race(scorer, zoo.theta, "select", 0.0, "test")
    assert sum(scorer.passes.values()) == sum(runner.rows for runner in runners)
    assert sorted(runner.rows for runner in runners) == [4] * 4 + [8] * 2 + [16, 32]


def test_one_candidate_sees_all_rows(scorer: Scorer, zoo: Zoo) -> None:
    (runner,) = race(scorer, zoo.theta[:1], "select", 1.0, "test")
    assert runner.rows == 32
