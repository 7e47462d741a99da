"""Section `probe`: which tasks are left out."""

from typing import Any

import pytest

from condpdiff.common.errors import UserError
from condpdiff.common.settings import parse
from condpdiff.evaluate.settings import Probe

TASKS = ["a", "b", "c"]


def make(**changes: Any) -> Probe:
    return parse(Probe, {"samples": 2, "unseen": 2, "ldm_steps": 10} | changes, "params.yaml", "probe")


@pytest.mark.parametrize(("unseen", "expected"), [(0, ""), (1, "a"), (2, "ab"), (9, "abc")])
def test_the_first_tasks_are_left_out_as_many_as_asked_for_or_there_are(unseen: int, expected: str) -> None:
    assert make(unseen=unseen).left_out(TASKS, "task_info") == list(expected)


@pytest.mark.parametrize("kind", ["one_hot", "learnable"])
def test_a_condition_that_says_nothing_of_a_new_task_leaves_none_out(kind: str) -> None:
    assert make().left_out(TASKS, kind) == []


def test_nothing_is_left_out_of_a_single_task() -> None:
    assert make().left_out(["a"], "style_images") == []


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"samples": -1}, "probe.samples: found -1, allowed: greater than or equal to 0"),
        ({"unseen": -1}, "probe.unseen: found -1, allowed: greater than or equal to 0"),
        ({"ldm_steps": 0}, "probe.ldm_steps: found 0, allowed: greater than 0"),
    ],
)
def test_wrong_key_is_one_line(keys: dict[str, int], line: str) -> None:
    with pytest.raises(UserError) as error:
        make(**keys)
    assert str(error.value) == f"params.yaml: {line}"
