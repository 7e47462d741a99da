"""Section `interpolate`: which lambdas, and which pairs."""

from pathlib import Path
from typing import Any

import pytest

from condpdiff.common.errors import UserError
from condpdiff.common.settings import parse, read_yaml
from condpdiff.evaluate.settings import Interpolate
from condpdiff.experiments.params import Params


def make(**changes: Any) -> Interpolate:
    return parse(Interpolate, {"points": 5, "pairs": 1, "samples": 2} | changes, "params.yaml", "interpolate")


def test_lambdas_go_evenly_from_0_to_1_and_reach_both() -> None:
    assert make().lambdas == [0, 0.25, 0.5, 0.75, 1]
    assert make(points=2).lambdas == [0, 1]
    assert make(points=4).lambdas[-1] == 1


@pytest.mark.parametrize(("pairs", "expected"), [(0, []), (1, ["ab"]), (2, ["ab", "bc"]), (9, ["ab", "bc"])])
def test_pairs_are_neighbours_of_the_list_as_many_as_asked_for_or_there_are(pairs: int, expected: list[str]) -> None:
    assert make(pairs=pairs).pairs_of(["a", "b", "c"]) == [tuple(pair) for pair in expected]


def test_a_single_task_has_no_pair() -> None:
    assert make(pairs=3).pairs_of(["a"]) == []


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"points": 1}, "interpolate.points: found 1, allowed: greater than or equal to 2"),
        ({"pairs": -1}, "interpolate.pairs: found -1, allowed: greater than or equal to 0"),
        ({"samples": 0}, "interpolate.samples: found 0, allowed: greater than 0"),
    ],
)
def test_wrong_key_is_one_line(keys: dict[str, int], line: str) -> None:
    with pytest.raises(UserError) as error:
        make(**keys)
    assert str(error.value) == f"params.yaml: {line}"


def test_no_more_samples_than_were_generated() -> None:
    params = read_yaml(Path("configs/default.yaml"))
    params["sample"]["count"], params["interpolate"]["samples"] = 3, 4
    with pytest.raises(UserError, match=r"interpolate.samples: found 4, allowed: at most sample.count = 3$"):
        parse(Params, params, "params.yaml")
