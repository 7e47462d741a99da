"""What the racing benchmark reads, adds up and prints."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import racing

FULL = pd.DataFrame(
    {
        "arm": ["soup", "condpdiff", "condpdiff", "condpdiff"],
        "candidate": [0, 0, 1, 2],
        "rows": [96, 96, 96, 96],
        "select": [80.0, 81.0, 83.0, 82.0],
        "validation": [70.0, 71.0, 72.0, 73.0],
        "distance": [0.5, 0.1, 0.2, np.nan],
    }
)
RACED = FULL.assign(rows=[96, 12, 24, 96], select=[80.0, np.nan, np.nan, 82.0], validation=[70.0, np.nan, np.nan, 73.0])


def test_a_row_has_both_winners_their_scores_and_their_passes() -> None:
    row = racing.both("movies", "condpdiff", FULL, RACED, (96, 320))
    assert row.winners == ("1", "2")
    assert row.scores == (72.0, 73.0)
    assert row.passes == (3 * (96 + 320), 12 + 24 + 96 + 320)
    assert row.line() == "| movies | condpdiff | 3 | 1 | 2 | 72.00 | 73.00 | 1,248 | 452 | 64% |"


def test_the_sum_tells_how_often_both_rules_agree() -> None:
    rows = [racing.both("movies", arm, FULL, RACED, (96, 320)) for arm in ("soup", "condpdiff")]
    total = racing.total(rows)
    assert total.winners == ("1 of 2", "agree")
    assert total.scores == (71.0, 71.5)
    assert total.passes == (416 + 1248, 416 + 452)
    assert total.line().count("|") == racing.HEAD.count("|") + 2


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"distance": [0.5, 0.1, 0.3, np.nan]}, False),
        ({"validation": [70.0, 71.0, np.nan, 73.0]}, False),
        ({"arm": ["soup", "condpdiff", "condpdiff", "gaussian"]}, False),
    ],
)
def test_stored_scores_count_if_they_are_full_and_of_the_same_candidates(
    tmp_path: Path, change: dict[str, list[object]], same: bool
) -> None:
    path = tmp_path / "scores.csv"
    assert racing.stored(path, RACED) is None
    FULL.assign(**change).to_csv(path, index=False)
    found = racing.stored(path, RACED)
    assert (found is not None) == same
