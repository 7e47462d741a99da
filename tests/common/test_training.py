"""The training loop: it minimises, and its curve covers every step."""

import torch
from torch import Tensor, nn

from condpdiff.common.training import LOG_EVERY, fit


class Point(nn.Module):
    """A vector of parameters whose loss is its squared distance to `target`."""

    def __init__(self, *start: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(start))

    def forward(self, target: float) -> Tensor:
        return (self.x - target).square().sum()


def test_quadratic_is_minimised_and_the_curve_ends_at_the_last_step() -> None:
    model, calls = Point(3.0, -2.0), []
    curve = fit(model, lambda network: network(1.0), steps=130, lr=0.1, what="t", after_step=lambda: calls.append(1))
    assert (model.x.detach() - 1).abs().max() < 0.05
    assert len(calls) == 130
    assert curve["step"].tolist() == [*range(LOG_EVERY, 130, LOG_EVERY), 130]
    assert curve["loss"].is_monotonic_decreasing


def test_curve_is_the_mean_since_its_last_point() -> None:
    values = iter(range(1, 1000))
    curve = fit(Point(0.0), lambda net: 0 * net(0.0) + next(values), steps=2 * LOG_EVERY, lr=0.1, what="t")
    assert curve["loss"].tolist() == [(LOG_EVERY + 1) / 2, (3 * LOG_EVERY + 1) / 2]


def test_one_step_is_enough_for_a_curve() -> None:
    model = Point(1.0)
    assert fit(model, lambda network: network(0.0), steps=1, lr=0.1, what="t").values.tolist() == [[1, 1.0]]
    assert model.x.item() < 1
