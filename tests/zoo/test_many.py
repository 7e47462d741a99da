"""A family's zoo: LoRAs side by side are as each would be alone, and an interrupted run goes on after a group."""

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from condpdiff.common.settings import parse
from condpdiff.common.stage import FOLDER, PART
from condpdiff.common.task import Finetune
from condpdiff.zoo import many
from condpdiff.zoo.checkpoints import load_zoo, unflatten
from condpdiff.zoo.collect import trained_part
from condpdiff.zoo.many import Losses, ManyFinetuning, collect_many, finetune_many
from condpdiff.zoo.placed import PREFIX, batched_loras, merge_targets
from condpdiff.zoo.settings import Collect
from tests.messages import message_of
from tests.stand_ins import make_collect, make_toy
from tests.tensors import random

SETTINGS = parse(Finetune, {"steps": 30, "batch_size": 8, "lr": 0.02}, "task.yaml", "finetune")
COLLECT = make_collect(every=2)


class Family(ManyFinetuning):
    """Member q's rows are random, and their labels a linear map's of its own, farther off the larger q is."""

    def __init__(self, count: int) -> None:
        self.model, self.layout = make_toy()
        self.trained = torch.ones(self.layout.K)
        self.start, self.count, self.config, self.digest = 0.3 * random(self.layout.K), count, {"made": "up"}, "toy"
        self.asked: list[list[int]] = []

    def losses(self, members: list[int], batch_size: int, seed: int) -> Losses:
        self.asked.append(members)

        def found(theta: Tensor, step: int) -> Tensor:
            x = torch.stack([random(batch_size, 6, seed=10_000 * q + 100 * seed + step) for q in members])
            labels = torch.bmm(x, torch.stack([(1 + q) * random(6, 3, seed=q) for q in members]))
            with batched_loras(self.model, self.layout, 2.0, theta):
                out = self.model(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            return (out - labels).square().mean((1, 2))

        return found


@pytest.fixture(autouse=True)
def groups_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(many, "TOGETHER", 2)


def collected(family: ManyFinetuning, out: str, collect: Collect = COLLECT) -> Tensor:
    """Theta [Q, N, K]."""
    collect_many(family, "toys", SETTINGS, collect, Path(out))
    return torch.stack([load_zoo(Path(out, str(q))).theta for q in range(family.count)])


@cache
def whole() -> Tensor:
    """Of a run that nothing interrupts."""
    return collected(Family(5), "whole")


def tuned(family: Family, members: list[int]) -> Tensor:
    start = family.start.repeat(len(members), 1)
    return finetune_many(family.losses(members, 8, 0), start, family.trained, SETTINGS, "toys")


def test_a_member_s_lora_is_the_same_whatever_stands_beside_it_and_what_is_not_to_train_stays() -> None:
    family = Family(5)
    alone, beside = tuned(family, [1]), tuned(family, [4, 1, 0])
    torch.testing.assert_close(beside[1:2], alone, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(beside[0], beside[1], atol=0.1)
    family.trained = trained_part(family.layout, "B")
    assert 0 < family.trained.sum() < family.layout.K
    assert torch.equal((tuned(family, [0, 1]) != family.start).any(0), family.trained > 0)
    decay = SETTINGS.model_copy(update={"weight_decay": 0.1})
    says = message_of(finetune_many, family.losses([0], 8, 0), family.start[None], family.trained, decay, "toys")
    assert says.startswith("toys: finetune.weight_decay: found 0.1 with collect.factors: A or B, allowed: 0")


def test_zoo_holds_every_member_s_last_states_of_falling_loss(capsys: pytest.CaptureFixture[str]) -> None:
    family = Family(5)
    theta = collected(family, "zoo")
    assert theta.shape == (5, COLLECT.max_checkpoints, family.layout.K)
    assert family.asked == [[0, 1], [2, 3], [4]]
    assert all(len(states.unique(dim=0)) == len(states) for states in theta)
    for q in range(5):
        losses = family.losses([q], 64, 9)
        assert losses(theta[q, -1:], 0) < 0.9 * losses(family.start[None], 0)
    zoo = load_zoo(Path("zoo/3"), 2)
    assert torch.equal(zoo.theta, theta[3, -2:]) and zoo.layout == family.layout and zoo.head == {}
    placed = {"rank": 2, "alpha": 4.0, "factors": "both", "modules_to_save": []}
    assert zoo.config == {**placed, "task": "toys", "made": "up"}
    curve = pd.read_csv("zoo/loss.csv")
    assert curve["step"].tolist() == list(range(1, SETTINGS.steps + 2 * COLLECT.max_checkpoints + 1))
    assert curve["loss"].iloc[-5:].mean() < 0.9 * curve["loss"].iloc[:5].mean()
    assert capsys.readouterr().out.startswith("toys: 5 members, 4 checkpoints each, loss ")


def test_interrupted_run_goes_on_after_the_last_finished_group(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Family(5)
    monkeypatch.setenv(FOLDER, "unfinished")
    losses = family.losses

    def interrupted(members: list[int], *rest: Any) -> Losses:
        if members == [2, 3]:
            raise KeyboardInterrupt
        return losses(members, *rest)

    monkeypatch.setattr(family, "losses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collected(family, "zoo")
    assert not Path("zoo").exists()
    again = Family(5)
    assert torch.equal(collected(again, "zoo"), whole())
    assert again.asked == [[2, 3], [4]]


def test_parts_of_a_family_are_put_together_by_the_run_that_writes_the_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, "unfinished")
    families = Family(5), Family(5), Family(5)
    for i, family in enumerate(families[:2]):
        with monkeypatch.context() as patch:
            patch.setenv(PART, f"{i}/2")
            collect_many(family, "toys", SETTINGS, COLLECT, Path("zoo"))
    assert not Path("zoo").exists() and [family.asked for family in families[:2]] == [[[0, 1], [4]], [[2, 3]]]
    assert torch.equal(collected(families[2], "zoo"), whole()) and families[2].asked == []


# --- many LoRAs on one base model ----------------------------------------------------------------

S, V, SCALE = 3, 4, 2.0
MODEL, LAYOUT = make_toy()


def merged(theta: Tensor, x: Tensor) -> Tensor:
    """What the model gives with one LoRA [K] added to its weights."""
    parts = unflatten(theta, LAYOUT)
    weights = {
        f"{name}.weight": module.weight
        + SCALE * parts[f"{PREFIX}{name}.lora_B.weight"] @ parts[f"{PREFIX}{name}.lora_A.weight"]
        for name, module in merge_targets(MODEL, LAYOUT).items()
    }
    return torch.func.functional_call(MODEL, weights, x)


@pytest.mark.parametrize("shape", [(6,), (7, 6)])  # rows of a vector, and of tokens
def test_each_group_of_rows_passes_as_if_its_lora_were_merged_and_then_the_base_is_bare(shape: tuple[int, ...]) -> None:
    x, theta = random(S * V, *shape), random(S, LAYOUT.K, seed=1)
    bare = MODEL(x)
    with batched_loras(MODEL, LAYOUT, SCALE, theta):
        found = MODEL(x)
    alone = [merged(each, rows) for each, rows in zip(theta, x.split(V), strict=True)]
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, bare, atol=0.1)
    with pytest.raises(KeyboardInterrupt), batched_loras(MODEL, LAYOUT, SCALE, theta):
        raise KeyboardInterrupt
    assert torch.equal(MODEL(x), bare)
