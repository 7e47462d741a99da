"""Arms: the winner's rule and the distance to the zoo; tests/text/test_evaluation.py builds arms and scores them."""

import numpy as np
import pandas as pd
import pytest
import torch

from condpdiff.evaluate.arms import distance_to_zoo, winner


@pytest.mark.parametrize(
    ("select", "expected"),
    [([1.0, 3.0, 3.0], 1), ([5.0, 5.0, 5.0], 0), ([1.0, 2.0, 3.0], 2), ([np.nan, -2.0, -1.0], 2), ([np.nan] * 3, 0)],
)
def test_winner_is_the_best_on_select_and_the_first_of_equals(select: list[float], expected: int) -> None:
    other = {"arm": "original", "candidate": [0, 1], "select": [9.0, 99.0], "validation": [1.0, 1.0]}
    ours = {"arm": "condpdiff", "candidate": [0, 1, 2], "select": select, "validation": [9.0, 0.0, 0.0]}
    scores = pd.concat([pd.DataFrame(other), pd.DataFrame(ours)], ignore_index=True)
    assert winner(scores, "condpdiff") == expected


def test_distance_is_to_the_nearest_checkpoint_and_leaves_out_itself() -> None:
    theta = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])
    assert distance_to_zoo(torch.tensor([0.0, 2.0]), theta) == 2.0
    assert distance_to_zoo(theta[1], theta) == 0.0
    assert distance_to_zoo(theta[1], theta, 1) == 1.0
    assert distance_to_zoo(theta[0], theta[:1], 0) == 0.0  # the only one has no other
