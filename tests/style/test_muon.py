"""Muon and AdamW as one optimizer: each parameter has one of them, and one schedule moves the rates of both."""

import pytest
import torch
from torch import nn

from condpdiff.style.muon import RATE, Muon, MuonAdamW


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"inner": nn.Sequential(nn.Linear(6, 5), nn.GELU()), "outer": nn.Linear(5, 3)})


def test_every_parameter_has_one_optimizer_and_the_inner_matrices_have_muon(model: nn.Module) -> None:
    optimizer = MuonAdamW(model, 1e-3, inside="inner")
    muon, adamw = ([p for group in part.param_groups for p in group["params"]] for part in optimizer.parts)
    assert [id(p) for p in muon] == [id(model["inner"][0].weight)]  # type: ignore[index]
    assert sorted(map(id, muon + adamw)) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize("prepared", [False, True])
def test_both_step_at_the_rates_of_a_schedule(model: nn.Module, prepared: bool) -> None:
    optimizer = MuonAdamW(model, 1e-3, inside="inner")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step > 0))
    if prepared:
        optimizer.load_state_dict(optimizer.state_dict())  # as Accelerate does, which gives it other groups
    moved = []
    for _ in range(2):
        before = [p.detach().clone() for p in model.parameters()]
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        schedule.step()
        moved.append([not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)])
    assert moved == [[False] * 4, [True] * 4]
    assert [group["lr"] for part in optimizer.parts for group in part.param_groups] == [RATE, 1e-3]


def test_steps_are_those_of_torchs_muon_up_to_its_bf16() -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((16, 8), (8, 16), (16, 8), (4, 4))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    optimizers = Muon(ours, RATE), torch.optim.Muon(theirs, lr=RATE, weight_decay=0.0)
    start = [p.detach().clone() for p in ours]
    for _ in range(4):
        for one, other in zip(ours[:3], theirs, strict=False):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, first in list(zip(ours, theirs, start, strict=True))[:3]:
        assert (one - other).norm() < 0.02 * (one - first).norm()
    assert torch.equal(ours[3], start[3])  # it has no gradient
