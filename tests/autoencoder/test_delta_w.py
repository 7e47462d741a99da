"""The loss on the updates B A: against explicit products, whatever the gauge of the factors."""

import pytest
import torch
from torch import Tensor

from condpdiff.autoencoder.delta_w import UpdateLoss, pairs_of
from condpdiff.common.errors import UserError
from condpdiff.zoo.layout import Layout, flatten, unflatten
from condpdiff.zoo.normalization import Statistics, denormalise, normalise
from tests.stand_ins import make_layout

LAYOUT = make_layout(layers=2, rank=2, width=5)
COUNTS = [3, 4]
PICKED = torch.tensor([0, 2, 3, 6, 4])
TASKS = torch.tensor([0, 0, 1, 1, 1])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def statistics() -> list[Statistics]:
    return [Statistics(random(LAYOUT.K, seed=i), 0.1 + random(LAYOUT.K, seed=9 + i).abs()) for i in range(2)]


def loss(decoded: Tensor, w: Tensor, weight: float = 1.0) -> float:
    return float(UpdateLoss(LAYOUT, statistics(), COUNTS, weight)(decoded, w, PICKED))


def updates(w: Tensor, task: int) -> list[Tensor]:
    """B A of every pair of one normalised row w [K], formed in full."""
    tensors = unflatten(denormalise(w, statistics()[task]), LAYOUT)
    return [tensors[b.key] @ tensors[a.key] for a, b in pairs_of(LAYOUT)]


def regauged(w: Tensor, task: int) -> Tensor:
    """The same updates from other factors: B R and R^-1 A."""
    tensors = dict(unflatten(denormalise(w, statistics()[task]), LAYOUT))
    for i, (a, b) in enumerate(pairs_of(LAYOUT)):
        turn = torch.eye(2) + 0.5 * random(2, 2, seed=20 + i)
        tensors[b.key], tensors[a.key] = tensors[b.key] @ turn, torch.linalg.inv(turn) @ tensors[a.key]
    return normalise(flatten(tensors, LAYOUT)[None], statistics()[task])[0]


@pytest.mark.parametrize("off", [1.0, 1e-2, 1e-4])
def test_loss_equals_that_of_explicit_products(off: float) -> None:
    w = random(5, LAYOUT.K, seed=3)
    decoded = w + off * random(5, LAYOUT.K, seed=4)
    errors = []
    for row, other, task in zip(w.double(), decoded.double(), TASKS.tolist(), strict=True):
        pairs = zip(updates(row, task), updates(other, task), strict=True)
        errors += [float((x - y).square().sum() / x.square().sum()) for x, y in pairs]
    assert loss(decoded, w) == pytest.approx(sum(errors) / len(errors), rel=1e-3)
    assert loss(decoded, w, weight=3.0) == pytest.approx(3 * loss(decoded, w))


def test_other_factors_of_the_same_updates_cost_nothing() -> None:
    w = random(5, LAYOUT.K, seed=3)
    decoded = torch.stack([regauged(row, task) for row, task in zip(w, TASKS.tolist(), strict=True)])
    assert float((decoded - w).square().mean()) > 0.1
    assert abs(loss(decoded, w)) < 1e-5  # float32 rounding of factors far from the true ones


def test_what_is_decoded_right_costs_nothing_and_the_rest_has_a_finite_gradient() -> None:
    w = random(5, LAYOUT.K, seed=3)
    assert loss(w, w) == 0
    decoded = (w + 0.1).requires_grad_()
    UpdateLoss(LAYOUT, statistics(), COUNTS, 1.0)(decoded, w, PICKED).backward()
    assert decoded.grad is not None and torch.isfinite(decoded.grad).all() and (decoded.grad != 0).any()
    still = [Statistics(torch.zeros(LAYOUT.K), torch.ones(LAYOUT.K))] * 2
    zero = torch.zeros(5, LAYOUT.K)  # an update of zero
    assert torch.isfinite(UpdateLoss(LAYOUT, still, COUNTS, 1.0)(zero + 1e-3, zero, PICKED))


@pytest.mark.parametrize("missing", [0, 1])
def test_tensor_without_its_partner_is_one_line(missing: int) -> None:
    entries = [entry for i, entry in enumerate(LAYOUT.entries) if i != missing]
    with pytest.raises(UserError, match=rf"layout: found no .*lora_{'AB'[missing]}.weight, allowed:"):
        pairs_of(Layout(tuple(entries)))
