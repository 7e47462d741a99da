"""Where a stage computes: environment variables, and one line when they can't be had."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from condpdiff.autoencoder.latents import save_latents
from condpdiff.common.hardware import COMPILE, DEVICE, PROCESSES, TOGETHER, compiled, count, device, rank, share, shared
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
    for name in (DEVICE, PROCESSES, TOGETHER, COMPILE, "RANK", "LOCAL_RANK", "WORLD_SIZE"):
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


@pytest.mark.parametrize(("has_gpu", "asked", "allowed"), [(False, "cuda", "cpu"), (True, "tpu", "cpu or cuda")])
def test_device_that_is_not_there_is_one_line(
    has_gpu: bool, asked: str, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setenv(DEVICE, asked)
    assert message_of(device) == f"environment: {DEVICE}: found '{asked}', allowed here: {allowed}"


@pytest.mark.parametrize("found", ["0", "-1", "two", "1.5"])
def test_number_of_processes_and_of_loras_side_by_side_is_at_least_1(
    found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert count(PROCESSES, 1) == 1
    monkeypatch.setenv(PROCESSES, "4")
    assert count(PROCESSES, 1) == 4
    monkeypatch.setenv(PROCESSES, found)
    assert message_of(count, PROCESSES, 1) == f"environment: {PROCESSES}: found '{found}', allowed: 1 or more"


def test_batch_is_shared_evenly_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert share(10) == 10
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert share(10) == 2
    assert message_of(share, 12) == f"environment: {PROCESSES}: found 5, allowed: a divisor of batch_size = 12"


def test_model_is_compiled_only_when_asked() -> None:
    model = nn.Linear(2, 2)
    assert compiled(model) is model


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
