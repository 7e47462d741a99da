"""The collector on a toy: what a zoo holds, and that an interruption leaves no trace. Domains test what is theirs."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from condpdiff.common.files import read_tensors
from condpdiff.common.settings import parse
from condpdiff.common.stage import FOLDER
from condpdiff.common.task import Finetune
from condpdiff.common.training import SAVE_AFTER
from condpdiff.zoo import collect as module
from condpdiff.zoo.checkpoints import HEAD, THETA, load_zoo
from condpdiff.zoo.collect import BatchLoss, Finetuning, collect_zoo, head_schedule, lora_schedule
from tests.messages import message_of
from tests.stand_ins import make_collect

FILES = [HEAD, "layout.json", "loss.csv", THETA, "validation.csv"]
OPENS = 8  # finetune.steps of the toy
TRAINED = "base_model.model.head.modules_to_save.default.weight"


class PowerCutError(Exception):
    """Stands for whatever ends a run from outside."""


class Net(nn.Module):
    """Two layers that get a LoRA, and perhaps a head."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, outputs) if outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(torch.tanh(self.one(x)))).sum(1)


class SquareLoss(BatchLoss):
    """Squared error of inputs of which some are dropped: torch's generator is part of a run."""

    def forward(self, x: Tensor) -> Tensor:
        return (self.model(nn.functional.dropout(x, 0.1)) - x.sum(1)).square().mean()


class Toy(Finetuning):
    """Learns a sum; ends when it is asked for a batch more than `fails_at`."""

    head_lr = 0.02

    def __init__(self, outputs: int, fails_at: int, finetune: dict[str, Any], **collect: Any) -> None:
        settings = {"steps": OPENS, "batch_size": 4, "lr": 0.01} | finetune
        asked = make_collect(target_modules=["one", "two"], **collect)
        super().__init__("toy", parse(Finetune, settings, "toy.yaml"), asked)
        self.outputs, self.left = outputs, fails_at
        self.config = {"num_outputs": outputs}
        self.seen: list[dict[str, Tensor]] = []  # weights of the model, whenever it was scored

    def start(self) -> BatchLoss:
        torch.manual_seed(100)
        base = Net(self.outputs).requires_grad_(False)
        torch.manual_seed(self.collect.seed)
        placed = {"target_modules": ["one", "two"], "modules_to_save": ["head"] if self.outputs else None}
        return SquareLoss(get_peft_model(base, LoraConfig(r=2, lora_alpha=self.collect.alpha, **placed)))

    def batches(self) -> Callable[[int], tuple[Any, ...]]:
        seed = self.collect.seed

        def batch(step: int) -> tuple[Any, ...]:
            self.left -= 1
            if self.left < 0:
                raise PowerCutError
            return (torch.tensor(np.random.default_rng([seed, step]).standard_normal((4, 3)), dtype=torch.float32),)

        return batch

    @torch.no_grad()
    def score(self, model: PeftModel) -> float:
        self.seen.append({key: p.detach().clone() for key, p in model.named_parameters()})
        x = torch.linspace(-1, 1, 12).reshape(4, 3)
        return -float((model(x) - x.sum(1)).square().mean())

    def verdict(self, scores: list[tuple[int, float]]) -> tuple[str, str | None]:
        return f"{len(scores)} scores", None if scores[-1][1] > scores[0][1] else "nothing"


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FOLDER, "unfinished")
    monkeypatch.setenv(SAVE_AFTER, "0")


def run(
    out: str = "zoo", outputs: int = 2, fails_at: int = 10**6, finetune: Any = (), on: bool = False, **collect: Any
) -> Toy:
    """Fine-tune, from the first step or, `on`, from what was left."""
    if not on:
        shutil.rmtree("unfinished", ignore_errors=True)
    toy = Toy(outputs, fails_at, dict(finetune), **collect)
    collect_zoo(toy, Path(out))
    return toy


def cut(steps: int, **collect: Any) -> None:
    """A run that ends after some steps."""
    with pytest.raises(PowerCutError):
        run("again", fails_at=steps, **collect)


def same(one: str, two: str) -> bool:
    return all((Path(one) / name).read_bytes() == (Path(two) / name).read_bytes() for name in FILES)


@pytest.mark.parametrize("outputs", [2, 0])
def test_zoo_holds_n_different_states_and_can_be_loaded(outputs: int) -> None:
    run(outputs=outputs)
    assert sorted(path.name for path in Path("zoo").iterdir()) == FILES
    zoo = load_zoo(Path("zoo"), 4)
    assert zoo.theta.shape == (4, zoo.layout.K) == (4, 2 * (3 + 4 + 4 + 4))
    assert ((zoo.theta[1:] - zoo.theta[:-1]).abs().max(dim=1).values > 1e-4).all()
    placed = {"rank": 2, "alpha": 4.0, "target_modules": ["one", "two"], "task": "toy", "num_outputs": outputs}
    assert zoo.config == placed | {"modules_to_save": ["head"] if outputs else [], "task_type": None}
    assert sorted(zoo.head) == [f"base_model.model.head.{name}" for name in ("bias", "weight") if outputs]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, [9, 10, 11, 12]), ({"every": 3, "steps": 5}, [8, 11, 14, 17])],  # the run's steps in place of the task's
)
def test_states_are_the_last_of_the_run_and_the_head_stands(settings: dict[str, Any], expected: list[int]) -> None:
    toy, opens = run(**settings, validate_every=1), settings.get("steps", OPENS)
    zoo = load_zoo(Path("zoo"))
    assert read_tensors(Path("zoo") / THETA)["steps"].tolist() == expected
    for row, step in zip(zoo.theta, expected, strict=True):
        lora = [tensor.flatten() for key, tensor in toy.seen[step].items() if ".lora_" in key]
        assert torch.equal(row, torch.cat(lora))
    heads = [seen[TRAINED] for seen in toy.seen]
    stands = [torch.equal(a, b) for a, b in zip(heads, heads[1:], strict=False)]
    assert stands == [False] * opens + [True] * (expected[-1] - opens)
    assert torch.equal(zoo.head["base_model.model.head.weight"], heads[-1])
    validation, loss = pd.read_csv("zoo/validation.csv"), pd.read_csv("zoo/loss.csv")
    assert list(validation.columns) == ["task", "step", "score"] and list(loss.columns) == ["task", "step", "loss"]
    assert validation["step"].tolist() == list(range(expected[-1] + 1)) and loss["step"].iloc[-1] == expected[-1]


def test_every_lora_starts_from_one_a_whatever_the_head_and_another_seed_from_another() -> None:
    def start(outputs: int, seed: int = 0) -> dict[str, Tensor]:
        return {key: tensor for key, tensor in run(outputs=outputs, seed=seed).seen[0].items() if ".lora_" in key}

    first, without, other = start(2), start(0), start(2, seed=1)
    for key, tensor in first.items():
        assert torch.equal(tensor, without[key])
        assert torch.equal(tensor, torch.zeros_like(tensor)) == (".lora_B." in key)
        assert torch.equal(tensor, other[key]) == (".lora_B." in key)
    widest = max(tensor.abs().max() * tensor.shape[1] ** 0.5 for key, tensor in first.items() if ".lora_A." in key)
    assert 0.8 < widest <= 1  # uniform in +-1 / sqrt(inputs), as PEFT draws it


def test_rates_of_lora_and_head() -> None:
    toy = Toy(2, 0, {"steps": 100, "warmup": 0.1, "lr": 0.01}, lr=0.001)
    lora = [0.01 * lora_schedule(toy.finetune, toy.collect)(step) for step in range(120)]
    head = [head_schedule(toy.finetune)(step) for step in range(120)]
    assert lora[0] == pytest.approx(0.001)
    assert lora[9] == lora[99] == pytest.approx(0.01)
    assert lora[100:] == pytest.approx([0.001] * 20)  # constant in the window: N different states
    assert max(head) <= 1 and head[99] == pytest.approx(1 / 100) and not any(head[100:])


@pytest.mark.parametrize(("log_every", "steps"), [(3, 2), (4, 8), (2, 11)])  # no point yet, where it opens, the last
def test_cut_off_run_goes_on_to_the_same_bytes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, log_every: int, steps: int
) -> None:
    monkeypatch.setattr(module, "LOG_EVERY", log_every)
    run("whole")
    cut(steps)
    assert not Path("again").exists()
    for point in Path("unfinished").rglob("*.pt"):  # what trains, and not the base
        assert len(torch.load(point)["weights"]) == 6
    capsys.readouterr()
    run("again", on=True)
    last = steps // log_every * log_every
    assert (f"toy: going on from step {last}" in capsys.readouterr().out) == (last > 0)
    assert same("again", "whole")


def test_half_written_points_are_not_used_and_a_zoo_not_written_leaves_the_old(monkeypatch: pytest.MonkeyPatch) -> None:
    run("whole")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", Mock(side_effect=PowerCutError))
        cut(100)
    assert [path.name for path in Path("unfinished/toy").iterdir()] == ["0.partial"]
    run("again", on=True)
    assert same("again", "whole")
    run("again", seed=1)
    assert not same("again", "whole")
    before = (Path("again") / THETA).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(module, "save_zoo", Mock(side_effect=PowerCutError))
        cut(100)
    assert (Path("again") / THETA).read_bytes() == before
    run("again", fails_at=0, on=True)  # trains no more
    assert same("again", "whole")


def test_loss_that_is_no_number_and_a_batch_not_to_be_shared_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    message = message_of(run, finetune={"lr": 1e30})
    assert re.fullmatch(r"toy: step \d+: the loss is (nan|inf); lower toy: finetune.lr", message)
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert "allowed: a divisor of batch_size = 4" in message_of(Toy, 2, 0, {})


def test_run_that_learned_nothing_warns(capsys: pytest.CaptureFixture[str]) -> None:
    run(finetune={"lr": 1e-20}, outputs=0)
    warning = "warning: toy: not learned, no better than nothing; tune finetune in its task file\n"
    assert capsys.readouterr().out == f"toy: 4 scores\n{warning}"
    run(finetune={"steps": 60, "lr": 0.02}, validate_every=50)
    assert capsys.readouterr().out == "toy: 3 scores\n"
