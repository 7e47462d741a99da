"""The training loop: it minimises, its curve is of every step, a group at rate 0 stands. Resuming: zoo/test_collect."""

import pytest
import torch
from torch import Tensor, nn

from condpdiff.common.training import LOG_EVERY, adamw, fit, rise_and_fall


class Point(nn.Module):
    """A vector of parameters whose loss is its squared distance to `target`."""

    def __init__(self, *start: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(start))

    def forward(self, target: float) -> Tensor:
        return (self.x - target).square().sum()


def test_quadratic_is_minimised_and_the_curve_ends_at_the_last_step() -> None:
    model, done = Point(3.0, -2.0), []
    optimizer = adamw(model.parameters(), 0.1)
    curve = fit(model, lambda network, _: network(1.0), optimizer, steps=90, what="t", after_step=done.append)
    assert (model.x.detach() - 1).abs().max() < 0.1
    assert done == list(range(91))
    assert curve["step"].tolist() == [*range(LOG_EVERY, 90, LOG_EVERY), 90]
    assert curve["loss"].is_monotonic_decreasing
    found = fit(model, lambda network, _: network(0.0), optimizer, steps=1, what="t")
    assert found["step"].tolist() == [1]  # one step is enough for a curve, whose points are means since the last one
    found = fit(model, lambda net, step: 0 * net(0.0) + step + 1, optimizer, steps=20, what="t", log_every=10)
    assert found["loss"].tolist() == [5.5, 15.5]


def test_a_loss_that_rose_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    model = Point(1.0)
    for rate in (0.1, 1.1):  # of a parabola whose steps overshoot at rates above 1
        optimizer = torch.optim.SGD(model.parameters(), rate)
        fit(
            model,
            lambda net, _: net(0.0),
            optimizer,
            steps=40,
            what="t",
            schedule=lambda _: 1,
            log_every=5,
            rate="ae.lr",
        )
        told = "warning: t: the loss rose from" in (printed := capsys.readouterr().out)
        assert told == (rate > 1) and ("; lower ae.lr\n" in printed) == told


def test_rate_rises_over_a_twentieth_of_the_steps_and_falls_to_0() -> None:
    factors = [rise_and_fall(100)(step) for step in range(101)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert factors[100] == pytest.approx(0)


def test_group_whose_rate_is_0_stands_and_is_not_clipped_with() -> None:
    model = nn.ParameterDict({"a": torch.zeros(1), "b": torch.zeros(1)})
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            seen.append([None if p.grad is None else float(p.grad) for p in model.values()])
            super().step()

    optimizer = Watched([{"params": [model["a"]]}, {"params": [model["b"]]}], lr=1.0)
    schedule = [lambda step: 1.0, lambda step: float(step < 1)]
    fit(model, lambda net, _: net["a"].sum() + 100 * net["b"].sum(), optimizer, steps=3, what="t", schedule=schedule)
    assert seen[0] == pytest.approx([0.01, 1.0], rel=1e-3)  # clipped together, to a norm of 1
    assert seen[1:] == [[pytest.approx(1.0), None]] * 2
    assert model["b"].item() == pytest.approx(-1.0, rel=1e-3)
