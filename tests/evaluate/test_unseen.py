"""LoRAs for tasks that were never trained on, by rules without a generator, on problems whose answer is known."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV
from torch import Tensor

from condpdiff.evaluate import family
from condpdiff.evaluate.family import Rivals
from tests.tensors import random

Q, D, K, S = 24, 4, 20, 5


@pytest.fixture(autouse=True)
def few_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "PENALTIES", np.logspace(-3, 3, 4))


def linear(noise: float = 0.0) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Soups that are a linear map of the conditions, and conditions not trained on with their soups."""
    y, asked, weight = 3 + random(Q, D), 3 + random(S, D, seed=1), random(D, K, seed=2)
    return (7 + y @ weight + noise * random(Q, K, seed=3), y), asked, 7 + asked @ weight


def made(rivals: Rivals, asked: Tensor, seed: int = 0) -> dict[str, Tensor]:
    return {arm: rule() for arm, rule in rivals.rules(asked, seed).items()}


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).square().mean().sqrt())


def test_ridge_recovers_a_linear_map_and_is_near_it_under_noise() -> None:
    trained, asked, expected = linear()
    found = made(Rivals(*trained), asked)
    assert all(each.shape == (S, K) and each.dtype == torch.float32 for each in found.values())
    torch.testing.assert_close(found["mean_soup"], trained[0].mean(0).expand(S, -1))
    assert error(found["ridge"], expected) < 0.02
    assert error(found["kernel_ridge"], expected) < 0.5 * error(found["mean_soup"], expected)
    torch.testing.assert_close(found["ridge_gaussian"], found["ridge"], rtol=0, atol=0.05)  # nothing is left out
    trained, asked, expected = linear(noise=0.5)
    assert error(made(Rivals(*trained), asked)["ridge"], expected) < 0.5


def test_nearest_are_by_direction_from_the_mean_condition() -> None:
    y = 3 + torch.cat([torch.eye(6), -torch.eye(6)])
    found = made(Rivals(torch.eye(12), y), 3 + 9 * torch.eye(6)[[2, 5]])
    assert torch.equal(found["nearest"], torch.eye(12)[[2, 5]])
    soft = found["softmax_nearest"]
    torch.testing.assert_close(soft.sum(1), torch.ones(2))
    assert soft.argmax(1).tolist() == [2, 5] and (soft > 0).sum(1).tolist() == [family.NEIGHBOURS] * 2
    best, second = soft[0].topk(2).values
    assert best / second == pytest.approx(np.exp(10.0), rel=1e-3)
    few = made(Rivals(torch.eye(3), torch.eye(3)), torch.eye(3))  # fewer tasks than neighbours
    assert torch.equal(few["nearest"], torch.eye(3))


def test_kernel_ridge_follows_what_is_not_linear() -> None:
    y, asked = torch.linspace(-2, 2, Q)[:, None], torch.tensor([[-1.05], [0.03], [0.98]])
    found = made(Rivals(torch.cos(2 * y) * random(1, K), y), asked)
    expected = torch.cos(2 * asked) * random(1, K)
    assert error(found["kernel_ridge"], expected) < 0.05 < 0.3 < error(found["ridge"], expected)


def left_out(soups: np.ndarray, x: np.ndarray, penalty: float) -> Tensor:
    """Residuals [Q, K] of tasks that the regression was refitted without."""
    rest = [np.arange(Q) != q for q in range(Q)]
    fits = [Ridge(penalty).fit(x[keep], soups[keep]) for keep in rest]
    return torch.from_numpy(soups - np.concatenate([fit.predict(x[q : q + 1]) for q, fit in enumerate(fits)]))


def test_ridge_gaussian_is_spread_as_what_ridge_misses_of_tasks_left_out() -> None:
    (soups, y), asked, _ = linear(noise=0.5)
    rivals, many = Rivals(soups, y), asked[:1].expand(4000, -1)
    found = made(rivals, many)
    squares = float((y - y.mean(0)).square().sum(1).mean())
    penalty = RidgeCV(family.PENALTIES * squares).fit(y.numpy(), soups.numpy()).alpha_
    off, draws = left_out(soups.numpy(), y.numpy(), float(penalty)), found["ridge_gaussian"] - found["ridge"]
    torch.testing.assert_close(draws.std(0), off.square().mean(0).sqrt().float(), rtol=0.1, atol=0)
    torch.testing.assert_close(draws.T @ draws / 4000, (off.T @ off / Q).float(), rtol=0, atol=0.03)
    again, other = (made(rivals, many, seed)["ridge_gaussian"] for seed in (0, 1))
    assert torch.equal(found["ridge_gaussian"], again) and not torch.equal(found["ridge_gaussian"], other)
