"""Where a stage computes: environment variables, and one line when they can't be had."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from condpdiff.autoencoder.models import save_latents
from condpdiff.common.hardware import DEVICE, PROCESSES, TOGETHER, count, device, rank, share, shared, together
from condpdiff.common.task import MEMBERS, save_members
from condpdiff.diffusion import conditions as condition_file
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.conditions import save_conditions
from tests.messages import message_of

ROOT = Path(__file__).parents[2]
LDM = """
tasks: [a, b]
condition: {kind: task_info, encoder: minilm, model: none}
ldm: {channels: [8, 12, 16], prediction: sample, condition_dropout: 0.1, performance: rank, ema: 0.9, steps: 30,
  batch_size: 8, lr: 0.01}
"""


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (DEVICE, PROCESSES, TOGETHER, "CONDPDIFF_COMPILE", "RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("has_gpu", "asked", "local_rank", "found"),
    [
        (False, None, None, "cpu"),
        (True, None, None, "cuda"),
        (True, "cpu", None, "cpu"),
        (True, None, "3", "cuda:3"),  # processes that share a stage have a GPU each
        (True, "cpu", "3", "cpu"),
    ],
)
def test_gpu_is_taken_unless_the_cpu_is_asked_for(
    has_gpu: bool, asked: str | None, local_rank: str | None, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    for name, value in ((DEVICE, asked), ("LOCAL_RANK", local_rank)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert device() == found


@pytest.mark.parametrize(
    ("has_gpu", "name", "value", "call", "line"),
    [
        (False, DEVICE, "cuda", device, f"{DEVICE}: found 'cuda', allowed here: cpu"),
        (True, DEVICE, "tpu", device, f"{DEVICE}: found 'tpu', allowed here: cpu or cuda"),
        (False, "WORLD_SIZE", "5", lambda: share(12), f"{PROCESSES}: found 5, allowed: a divisor of batch_size = 12"),
        (False, TOGETHER, "0", lambda: together(12), f"{TOGETHER}: found '0', allowed: 1 or more"),
        (False, TOGETHER, "-1", lambda: together(12), f"{TOGETHER}: found '-1', allowed: 1 or more"),
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
    monkeypatch.setenv("RANK", "1")
    assert rank() == 1
    shared(lambda: calls.append("one of two"))()
    assert calls == ["alone", "one of two"]


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    """A folder where train-ldm can run."""
    (tmp_path / "params.yaml").write_text(LDM + "collect: {rank: 1, alpha: 1.0, max_checkpoints: 12}\n")
    for name in ("latents", "conditions", "performance"):
        (tmp_path / "data" / name).mkdir(parents=True)
    save_members(tmp_path / MEMBERS, ["a", "b"], [None, None])
    random = torch.Generator().manual_seed(0)
    save_latents(tmp_path / "data/latents", {q: torch.randn(12, 2, 8, generator=random) for q in "ab"})
    y = {q: torch.randn(2, 6, generator=random) for q in "ab"}
    save_conditions(tmp_path / "data/conditions" / condition_file.FILE, y)
    for q in "ab":
        losses = pd.DataFrame({"checkpoint": range(12), "loss": [i / 12 for i in range(12)]})
        losses.to_csv(tmp_path / "data/performance" / f"{q}.csv", index=False)
    return tmp_path


def test_two_processes_train_one_network_and_write_it_once(latents: Path) -> None:
    more = {"PYTHONPATH": str(ROOT), DEVICE: "cpu", PROCESSES: "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "stages.train_ldm"]
    done = subprocess.run(command, cwd=latents, env=os.environ | more, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(latents / "data/ldm/curve.csv")["step"].tolist() == [20, 30]
    assert [p.name for p in (latents / "data").glob(".ldm*")] == []
    model, process = diffusion.load(latents / "data/ldm" / diffusion.FILE)
    assert process == diffusion.Process("sample")
    assert all(torch.isfinite(p).all() for p in model.parameters())
