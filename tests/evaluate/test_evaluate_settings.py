"""Section `interpolate`: which lambdas and pairs, and how many samples."""

from pathlib import Path

import pytest

from condpdiff.common.settings import parse, read_yaml
from condpdiff.evaluate.settings import Interpolate
from condpdiff.experiments.params import Params
from tests.messages import message_of

TASKS = ["a", "b", "c"]


def make(**changes: int) -> Interpolate:
    return parse(Interpolate, {"points": 5, "pairs": 1, "samples": 2} | changes, "params.yaml", "interpolate")


@pytest.mark.parametrize(("pairs", "expected"), [(0, []), (1, ["ab"]), (2, ["ab", "bc"]), (9, ["ab", "bc"])])
def test_pairs_are_neighbours_of_the_list_as_many_as_asked_for_or_there_are(pairs: int, expected: list[str]) -> None:
    assert make(pairs=pairs).pairs_of(TASKS) == [tuple(pair) for pair in expected]
    assert make(pairs=pairs).pairs_of(["a"]) == []
    assert make().lambdas == [0, 0.25, 0.5, 0.75, 1]


def test_no_more_samples_than_were_generated() -> None:
    params = read_yaml(Path("configs/default.yaml"))
    params["sample"]["count"], params["interpolate"]["samples"] = 3, 4
    message = message_of(parse, Params, params, "params.yaml")
    assert message.endswith("interpolate.samples: found 4, allowed: at most sample.count = 3")
