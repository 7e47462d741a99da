"""The training loop: it minimises, and its curve covers every step."""

import torch
from torch import nn

from condpdiff.training import LOG_EVERY, fit


def test_quadratic_is_minimised_and_the_curve_ends_at_the_last_step() -> None:
    x = nn.Parameter(torch.tensor([3.0, -2.0]))
    calls = []
    curve = fit([x], lambda: (x - 1).square().sum(), steps=130, lr=0.1, what="t", after_step=lambda: calls.append(1))
    assert (x.detach() - 1).abs().max() < 0.05
    assert len(calls) == 130
    assert curve["step"].tolist() == [*range(LOG_EVERY, 130, LOG_EVERY), 130]
    assert curve["loss"].is_monotonic_decreasing


def test_curve_is_the_mean_since_its_last_point() -> None:
    x = nn.Parameter(torch.zeros(1))
    values = iter(range(1, 1000))
    curve = fit([x], lambda: (0 * x).sum() + next(values), steps=2 * LOG_EVERY, lr=0.1, what="t")
    assert curve["loss"].tolist() == [(LOG_EVERY + 1) / 2, (3 * LOG_EVERY + 1) / 2]


def test_one_step_is_enough_for_a_curve() -> None:
    x = nn.Parameter(torch.ones(1))
    assert fit([x], lambda: x.square().sum(), steps=1, lr=0.1, what="t").values.tolist() == [[1, 1.0]]
    assert x.item() < 1
