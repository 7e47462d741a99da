"""The collector on a toy: what a zoo holds, and that an interruption leaves no trace. Domains test what is theirs."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_tensors
from condpdiff.common.settings import parse
from condpdiff.common.task import Task
from condpdiff.zoo import collect as module
from condpdiff.zoo.checkpoints import HEAD, THETA, load_zoo
from condpdiff.zoo.collect import UNFINISHED, BatchLoss, Finetuning, collect_zoo, head_modules, head_state, set_head
from condpdiff.zoo.layout import layout_of
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
        return self.head(self.two(torch.tanh(self.one(x))))


class SquareLoss(BatchLoss):
    """Squared error of inputs of which some are dropped: torch's generator is part of a run."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.model(nn.functional.dropout(x, 0.1)).sum(1) - y).square().mean()


class Toy(Finetuning[Task]):
    """Learns a sum; `fails_at` ends it when it asks for so many batches."""

    head_lr = 0.02

    def __init__(self, collect: dict[str, Any], finetune: dict[str, Any], outputs: int, fails_at: int) -> None:
        sections: dict[str, Any] = {"data": {}, "condition": {}, "metrics": ["error"]}
        settings = {"steps": OPENS, "batch_size": 4, "lr": 0.01} | finetune
        task = parse(Task, {**sections, "finetune": settings}, "toy.yaml")
        super().__init__("toy", task, make_collect(**{"target_modules": ["one", "two"]} | collect))
        self.outputs, self.left = outputs, fails_at
        self.seen: list[dict[str, Tensor]] = []
        """Weights of the model, whenever it was scored."""

    @property
    def config(self) -> dict[str, Any]:
        return {"num_outputs": self.outputs}

    @property
    def files(self) -> Iterable[Path]:
        return [Path("rows")]

    def start(self, seed: int) -> BatchLoss:
        torch.manual_seed(100)
        base = Net(self.outputs).requires_grad_(False)
        torch.manual_seed(seed)
        c = self.collect
        where = {"target_modules": c.target_modules, "modules_to_save": ["head"] if self.outputs else None}
        return SquareLoss(get_peft_model(base, LoraConfig(r=c.rank, lora_alpha=c.alpha, **where)))

    def batches(self, seed: int) -> Callable[[int], tuple[Any, ...]]:
        def batch(step: int) -> tuple[Any, ...]:
            self.left -= 1
            if self.left < 0:
                raise PowerCutError
            x = np.random.default_rng([seed, step]).standard_normal((self.task.finetune.batch_size, 3))
            inputs = torch.tensor(x, dtype=torch.float32)
            return inputs, inputs.sum(1)

        return batch

    @torch.no_grad()
    def score(self, model: PeftModel) -> float:
        self.seen.append({key: p.detach().clone() for key, p in model.named_parameters()})
        x = torch.linspace(-1, 1, 12).reshape(4, 3)
        return -float((model(x).sum(1) - x.sum(1)).square().mean())

    def verdict(self, scores: list[tuple[int, float]]) -> tuple[str, str | None]:
        return f"{len(scores)} scores", None if scores[-1][1] > scores[0][1] else "nothing"


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows").write_text("the data")


def run(
    out: str = "zoo", finetune: dict[str, Any] | None = None, outputs: int = 2, fails_at: int = 10**6, **collect: Any
) -> Toy:
    toy = Toy(collect, finetune or {}, outputs, fails_at)
    collect_zoo(toy, Path(out))
    return toy


def cut(steps: int, **collect: Any) -> None:
    """A run that ends after some steps."""
    with pytest.raises(PowerCutError):
        run("again", fails_at=steps, **collect)


def same(one: str, two: str) -> bool:
    return all((Path(one) / name).read_bytes() == (Path(two) / name).read_bytes() for name in FILES)


# --- what the zoo holds -------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [2, 0])
def test_zoo_holds_n_different_states_and_can_be_loaded(outputs: int) -> None:
    run(outputs=outputs)
    assert sorted(path.name for path in Path("zoo").iterdir()) == FILES
    zoo = load_zoo(Path("zoo"), 4)
    assert zoo.theta.shape == (4, zoo.layout.K) == (4, 2 * (3 + 4 + 4 + 4))
    assert ((zoo.theta[1:] - zoo.theta[:-1]).abs().max(dim=1).values > 1e-4).all()
    placed = {"rank": 2, "alpha": 4.0, "target_modules": ["one", "two"], "task": "toy", "num_outputs": outputs}
    assert zoo.config == placed | {"modules_to_save": ["head"] if outputs else []}
    assert sorted(zoo.head) == [f"base_model.model.head.{name}" for name in ("bias", "weight") if outputs]


@pytest.mark.parametrize(("every", "expected"), [(1, [9, 10, 11, 12]), (3, [11, 14, 17, 20])])
def test_states_are_the_last_of_the_run(every: int, expected: list[int]) -> None:
    toy = run(every=every, validate_every=1)
    assert read_tensors(Path("zoo") / THETA)["steps"].tolist() == expected
    theta = load_zoo(Path("zoo"), 4).theta
    for row, step in zip(theta, expected, strict=True):
        lora = [tensor.flatten() for key, tensor in toy.seen[step].items() if ".lora_" in key]
        assert torch.equal(row, torch.cat(lora))


def test_steps_of_the_run_take_the_place_of_the_tasks() -> None:
    run(steps=5)
    assert read_tensors(Path("zoo") / THETA)["steps"].tolist() == [6, 7, 8, 9]


def test_curves_end_with_the_last_step_and_validation_begins_before_the_first() -> None:
    run(validate_every=4, max_checkpoints=7)
    validation, loss = pd.read_csv("zoo/validation.csv"), pd.read_csv("zoo/loss.csv")
    assert list(validation.columns) == ["task", "step", "score"] and list(loss.columns) == ["task", "step", "loss"]
    assert validation["step"].tolist() == [0, 4, 8, 12, 15]
    assert loss["step"].tolist() == [10, 15]
    assert set(loss["task"]) == set(validation["task"]) == {"toy"}


def test_head_learns_until_the_window_opens_and_stands_there() -> None:
    toy = run(validate_every=1)
    heads = [seen[TRAINED] for seen in toy.seen]
    assert [torch.equal(a, b) for a, b in zip(heads, heads[1:], strict=False)] == [False] * OPENS + [True] * 4
    assert torch.equal(load_zoo(Path("zoo"), 4).head["base_model.model.head.weight"], heads[-1])


def test_several_runs_share_the_states_and_the_first_one_s_head() -> None:
    toy, alone = run(runs=2, validate_every=1), run("alone", max_checkpoints=2, validate_every=1)
    zoo, one = load_zoo(Path("zoo"), 4), load_zoo(Path("alone"), 2)
    assert read_tensors(Path("zoo") / THETA)["steps"].tolist() == [9, 10, 9, 10]
    assert torch.equal(zoo.theta[:2], one.theta)
    far, near = (zoo.theta[1] - zoo.theta[2]).norm(), (zoo.theta[0] - zoo.theta[1]).norm()
    assert far > 5 * near  # no trajectory goes from one to the other
    assert (Path("zoo") / "loss.csv").read_bytes() == (Path("alone") / "loss.csv").read_bytes()
    second = toy.seen[len(alone.seen) :]
    assert len(second) == len(alone.seen)
    for seen in second:  # stands from the second run's first step
        assert torch.equal(seen[TRAINED], one.head["base_model.model.head.weight"])


def test_every_lora_starts_from_one_a_whatever_the_head_and_another_seed_from_another() -> None:
    def start(outputs: int, seed: int = 0) -> dict[str, Tensor]:
        seen = run(outputs=outputs, seed=seed).seen[0]
        return {key: tensor for key, tensor in seen.items() if ".lora_" in key}

    first = start(1)
    for outputs in (2, 3, 0):
        found = start(outputs)
        assert all(torch.equal(found[key], first[key]) for key in first)
    other = start(1, seed=1)
    for key, tensor in first.items():
        assert torch.equal(tensor, torch.zeros_like(tensor)) == (".lora_B." in key)
        assert torch.equal(tensor, other[key]) == (".lora_B." in key)
    widest = max(tensor.abs().max() * tensor.shape[1] ** 0.5 for key, tensor in first.items() if ".lora_A." in key)
    assert 0.8 < widest <= 1  # uniform in +-1 / sqrt(inputs), as PEFT draws it


def test_head_of_one_model_can_be_set_in_another() -> None:
    one, other = (Toy({}, {}, 2, 0).start(seed).model for seed in (0, 1))
    head = {key: torch.rand(value.shape) for key, value in head_state(one).items()}
    set_head(other, head)
    assert all(torch.equal(head_state(other)[key], head[key]) for key in head)
    assert head_modules(one) == ["head"]
    assert len(layout_of(one).entries) == 4


# --- rates --------------------------------------------------------------------------------------


def test_rates_of_lora_and_head() -> None:
    toy = Toy({"lr": 0.001}, {"steps": 100, "warmup": 0.1, "lr": 0.01}, 2, 0)
    lora = [0.01 * module.lora_schedule(toy.task.finetune, toy.collect)(step) for step in range(120)]
    head = [module.head_schedule(toy.task.finetune)(step) for step in range(120)]
    assert lora[0] == pytest.approx(0.001)
    assert lora[9] == lora[99] == pytest.approx(0.01)
    assert lora[100:] == pytest.approx([0.001] * 20)  # constant in the window: N different states
    assert max(head) <= 1
    assert head[99] == pytest.approx(1 / 100)
    assert not any(head[100:])


def test_rate_inside_the_window_goes_down_to_a_tenth_and_starts_again() -> None:
    toy = Toy({"lr": 0.1, "lr_cycle": 5}, {"lr": 0.1}, 2, 0)
    rates = [0.1 * module.lora_schedule(toy.task.finetune, toy.collect)(step) for step in range(OPENS, OPENS + 10)]
    assert rates[:5] == pytest.approx([0.1, 0.1 * (0.55 + 0.45 * 0.5**0.5), 0.055, 0.0231802, 0.01])
    assert rates[5:] == pytest.approx(rates[:5])


def test_rate_with_a_cycle_of_one_step_is_constant() -> None:
    run("one", lr_cycle=1)
    run("two")
    assert (Path("one") / THETA).read_bytes() == (Path("two") / THETA).read_bytes()


# --- the same bytes, interrupted or not ---------------------------------------------------------


def test_two_runs_of_one_seed_give_the_same_bytes_and_another_seed_does_not() -> None:
    run("one")
    torch.rand(3)  # the global state must not matter
    run("two")
    run("other", seed=1)
    assert same("one", "two")
    assert (Path("one") / THETA).read_bytes() != (Path("other") / THETA).read_bytes()


@pytest.mark.parametrize(
    ("save_every", "steps"),
    [(3, 2), (3, 5), (3, 10), (4, 8), (2, 11), (10, 11), (5, 7)],
    ids=["no point yet", "before the window", "in it", "where it opens", "the last step", "at a log", "amid a log"],
)
def test_interrupted_run_goes_on_and_gives_the_bytes_of_an_uninterrupted_one(
    capsys: pytest.CaptureFixture[str], save_every: int, steps: int
) -> None:
    run("whole", save_every=save_every)
    cut(steps, save_every=save_every)
    assert not Path("again").exists()
    capsys.readouterr()
    run("again", save_every=save_every)
    last = steps // save_every * save_every
    assert (f"toy: going on from step {last}" in capsys.readouterr().out) == (last > 0)
    assert same("again", "whole")
    assert not list(UNFINISHED.iterdir())


def test_interrupted_second_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    run("whole", runs=2, save_every=5)  # 10 steps a run
    cut(10 + 7, runs=2, save_every=5)
    capsys.readouterr()
    run("again", fails_at=5, runs=2, save_every=5)  # none of the first run's steps is done again
    out = capsys.readouterr().out
    assert "toy, run 1 of 2: going on from step 10" in out
    assert "toy, run 2 of 2: going on from step 5" in out
    assert same("again", "whole")


def test_resume_point_holds_what_trains_and_not_the_base() -> None:
    cut(7, save_every=3)
    (point,) = UNFINISHED.glob("toy-*/0/*")
    assert point.name == "step-6"
    assert not list(point.glob("*.safetensors"))
    weights = torch.load(point / "custom_checkpoint_0.pkl")["weights"]
    assert [tuple(weight.shape) for weight in weights] == [(2, 3), (4, 2), (2, 4), (4, 2), (2, 4), (2,)]


def test_resume_point_that_was_half_written_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    run("whole", save_every=3)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(PowerCutError))
        with pytest.raises(PowerCutError):
            run("again", save_every=3)
    assert [path.name for path in UNFINISHED.glob("toy-*/0/*")] == ["step-3.partial"]
    run("again", save_every=3)
    assert same("again", "whole")


@pytest.mark.parametrize("change", ["settings", "data"])
def test_resume_point_of_other_settings_or_data_is_not_used(change: str, capsys: pytest.CaptureFixture[str]) -> None:
    cut(7, save_every=3)
    if change == "data":
        Path("rows").write_text("other data")
    run("again", save_every=3, alpha=8.0 if change == "settings" else 4.0)
    assert "going on from" not in capsys.readouterr().out


def test_run_that_ended_after_its_last_step_is_not_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run("whole", save_every=4)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_tensors", lambda *_: (_ for _ in ()).throw(PowerCutError))
        cut(100, save_every=4)
    run("again", fails_at=0, save_every=4)
    assert same("again", "whole")


def test_failed_run_leaves_the_old_zoo() -> None:
    run("again")
    before = (Path("again") / THETA).read_bytes()
    cut(5)
    assert (Path("again") / THETA).read_bytes() == before


# --- prints and errors --------------------------------------------------------------------------


def test_task_that_was_not_learned_warns(capsys: pytest.CaptureFixture[str]) -> None:
    run(finetune={"lr": 1e-20}, outputs=0)
    out = capsys.readouterr().out
    assert "toy: 4 scores\n" in out
    assert "warning: toy: not learned, no better than nothing; tune finetune in its task file" in out


def test_task_that_was_learned_does_not_warn(capsys: pytest.CaptureFixture[str]) -> None:
    run(finetune={"steps": 60, "lr": 0.02}, runs=2, validate_every=50)
    out = capsys.readouterr().out
    assert "toy, run 1 of 2: 3 scores\ntoy, run 2 of 2: 3 scores\n" in out
    assert "warning" not in out


def test_batch_that_the_processes_can_not_share_is_found_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="allowed: a divisor of batch_size = 4"):
        Toy({}, {}, 2, 0)
