"""Muon and AdamW as one optimizer: each parameter has one of them, and one schedule moves the rates of both."""

import pytest
import torch
from torch import nn

from condpdiff.style.small_pixart import MUON_RATE, MuonAdamW


def model(*shapes: tuple[int, int]) -> nn.ModuleDict:
    torch.manual_seed(0)
    inner = nn.Sequential(*(nn.Linear(inside, out) for out, inside in shapes))
    return nn.ModuleDict({"inner": inner, "outer": nn.Linear(5, 3)})


def step(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.randn_like(p)
    optimizer.step()


@pytest.mark.parametrize("prepared", [False, True])
def test_both_step_at_the_rates_of_a_schedule(prepared: bool) -> None:
    network = model((5, 6))
    optimizer = MuonAdamW(network, 1e-3, inside="inner")
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(network["inner"][0].weight)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step > 0))
    if prepared:
        optimizer.load_state_dict(optimizer.state_dict())  # as Accelerate does, which gives it other groups
    moved = []
    for _ in range(2):
        before = [p.detach().clone() for p in network.parameters()]
        step(optimizer)
        schedule.step()
        moved.append([not torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True)])
    assert moved == [[False] * 4, [True] * 4]
    assert [group["lr"] for group in optimizer.param_groups] == [MUON_RATE, 1e-3]


def test_steps_are_those_of_torchs_muon_up_to_its_bf16_and_of_torchs_adamw() -> None:
    ours, theirs = (model((16, 8), (8, 16), (16, 8)) for _ in range(2))
    start = [p.detach().clone() for p in ours.parameters()]
    matrices, others = ([p for p in theirs["inner"].parameters() if p.dim() == d] for d in (2, 1))
    muon = torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.0)
    adamw = torch.optim.AdamW([*others, *theirs["outer"].parameters()], lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    optimizer = MuonAdamW(ours, 1e-3, inside="inner")
    for _ in range(4):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for each in (optimizer, muon, adamw):
            each.step()
    for one, other, first in zip(ours.parameters(), theirs.parameters(), start, strict=True):
        assert (one - other).norm() < 0.02 * (one - first).norm()
