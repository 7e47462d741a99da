"""Muon and AdamW as one optimizer: each parameter has one of them, and one schedule moves the rates of both."""

import pytest
import torch
from torch import nn

from condpdiff.muon import RATE, MuonAdamW


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"inner": nn.Sequential(nn.Linear(6, 5), nn.GELU()), "outer": nn.Linear(5, 3)})


def test_every_parameter_has_one_optimizer_and_the_inner_matrices_have_muon(model: nn.Module) -> None:
    optimizer = MuonAdamW(model, 1e-3, inside="inner")
    muon, adamw = ([p for group in part.param_groups for p in group["params"]] for part in optimizer.parts)
    assert [id(p) for p in muon] == [id(model["inner"][0].weight)]  # type: ignore[index]
    assert sorted(map(id, muon + adamw)) == sorted(map(id, model.parameters()))


def test_a_schedule_moves_both_rates(model: nn.Module) -> None:
    optimizer = MuonAdamW(model, 1e-3, inside="inner")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for part in optimizer.parts for group in part.param_groups] == [RATE / 2, 5e-4]


def test_steps_lower_a_loss(model: nn.Module) -> None:
    optimizer = MuonAdamW(model, 1e-2, inside="inner")
    x, y = torch.randn(32, 6), torch.randn(32, 3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (model["outer"](model["inner"](x)) - y).square().mean()  # type: ignore[index]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
