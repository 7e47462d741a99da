"""Where a stage computes: environment variables, and one line when they can't be had."""

from collections.abc import Callable

import pytest
import torch

from condpdiff.common.hardware import DEVICE, PROCESSES, TOGETHER, count, device, rank, share, shared, together
from tests.messages import message_of


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (DEVICE, PROCESSES, TOGETHER, "RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("has_gpu", "variables", "found"),
    [
        (False, {}, "cpu"),
        (True, {}, "cuda"),
        (True, {"LOCAL_RANK": "3"}, "cuda:3"),  # processes that share a stage have a GPU each
        (True, {DEVICE: "cpu", "LOCAL_RANK": "3"}, "cpu"),
    ],
)
def test_gpu_is_taken_unless_the_cpu_is_asked_for(
    has_gpu: bool, variables: dict[str, str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert device() == found


@pytest.mark.parametrize(
    ("has_gpu", "name", "value", "call", "line"),
    [
        (False, DEVICE, "cuda", device, f"{DEVICE}: found 'cuda', allowed here: cpu"),
        (True, DEVICE, "tpu", device, f"{DEVICE}: found 'tpu', allowed here: cpu or cuda"),
        (False, "WORLD_SIZE", "5", lambda: share(12), f"{PROCESSES}: found 5, allowed: a divisor of batch_size = 12"),
        (False, TOGETHER, "0", lambda: together(12), f"{TOGETHER}: found '0', allowed: 1 or more"),
        (False, PROCESSES, "1.5", lambda: count(PROCESSES, 1), f"{PROCESSES}: found '1.5', allowed: 1 or more"),
    ],
)
def test_what_can_not_be_had_is_one_line(
    has_gpu: bool, name: str, value: str, call: Callable[[], object], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setenv(name, value)
    assert message_of(call) == f"environment: {line}"


def test_loras_side_by_side_and_shares_of_a_batch_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (together(12), share(10)) == (12, 10)
    monkeypatch.setenv(TOGETHER, "4")
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert (together(12), share(10)) == (4, 2)


def test_stage_runs_here_when_it_is_not_shared_or_is_one_of_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    assert rank() == 0
    shared(lambda: calls.append("alone"))()
    monkeypatch.setenv(PROCESSES, "2")
    shared(lambda: calls.append("families"), lambda: True)()
    monkeypatch.setenv("RANK", "1")
    assert rank() == 1
    shared(lambda: calls.append("one of two"))()
    assert calls == ["alone", "families", "one of two"]
