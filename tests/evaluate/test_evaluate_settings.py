"""Sections `interpolate` and `probe`: which lambdas and pairs, and which tasks are left out."""

from pathlib import Path
from typing import Any

import pytest

from condpdiff.common.settings import Section, parse, read_yaml
from condpdiff.evaluate.settings import Interpolate, Probe
from condpdiff.experiments.params import Params
from tests.messages import message_of

TASKS = ["a", "b", "c"]
DEFAULTS: dict[type[Section], dict[str, int]] = {
    Interpolate: {"points": 5, "pairs": 1, "samples": 2},
    Probe: {"samples": 2, "unseen": 2, "ldm_steps": 10},
}


def make(model: type[Section], **changes: int) -> Any:
    return parse(model, DEFAULTS[model] | changes, "params.yaml", model.__name__.lower())


@pytest.mark.parametrize(("pairs", "expected"), [(0, []), (1, ["ab"]), (2, ["ab", "bc"]), (9, ["ab", "bc"])])
def test_pairs_are_neighbours_of_the_list_as_many_as_asked_for_or_there_are(pairs: int, expected: list[str]) -> None:
    assert make(Interpolate, pairs=pairs).pairs_of(TASKS) == [tuple(pair) for pair in expected]
    assert make(Interpolate, pairs=pairs).pairs_of(["a"]) == []
    assert make(Interpolate).lambdas == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(("unseen", "expected"), [(0, ""), (1, "a"), (2, "ab"), (9, "abc")])
def test_the_first_tasks_are_left_out_as_many_as_asked_for_or_there_are(unseen: int, expected: str) -> None:
    assert make(Probe, unseen=unseen).left_out(TASKS, "task_info") == list(expected)
    assert make(Probe, unseen=unseen).left_out(["a"], "style_images") == []
    assert make(Probe, unseen=unseen).left_out(TASKS, "one_hot") == []  # says nothing of a new task


def test_no_more_samples_than_were_generated() -> None:
    params = read_yaml(Path("configs/default.yaml"))
    params["sample"]["count"], params["interpolate"]["samples"] = 3, 4
    message = message_of(parse, Params, params, "params.yaml")
    assert message.endswith("interpolate.samples: found 4, allowed: at most sample.count = 3")
