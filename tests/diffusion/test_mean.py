"""mu(y): where conditions' latents lie; what is left round it has unit spread."""

import pytest
import torch
from torch import Tensor

from condpdiff.diffusion.denoiser import Mean

SHAPE, SPREAD = (2, 4), 0.05


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(tasks: int, learnable: bool) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Latents a hundred spreads apart, three conditions a task (or its index), and the tasks' means."""
    centres = 5 * random(tasks, *SHAPE, seed=1)
    z = {str(q): centres[q] + SPREAD * random(50, *SHAPE, seed=q) for q in range(tasks)}
    where = random(tasks, 12, seed=2)
    y = {q: where[int(q)] + 1e-3 * random(3, 12, seed=int(q)) for q in z}
    return z, {q: torch.tensor([[float(q)]]) for q in z} if learnable else y, centres


def fitted(tasks: int, learnable: bool, network: bool = False) -> tuple[Mean, dict[str, Tensor], dict[str, Tensor]]:
    z, y, _ = made(tasks, learnable)
    mean = Mean(12, SHAPE, tasks if learnable else 0, network)
    mean.fit(z, y, 1e-6)
    return mean, z, y


@pytest.mark.parametrize("learnable", [False, True])
def test_means_of_tasks_are_recovered_within_their_spread_and_residuals_of_unit_spread_lead_back(
    learnable: bool,
) -> None:
    mean, z, y = fitted(6, learnable)
    off = [(mean(y[q]) - z[q].mean(0)).square().mean().sqrt() for q in z]
    assert max(off) < 0.25 * SPREAD
    r = torch.stack([mean.residual(z[q], y[q][:1].expand(50, -1)) for q in z])
    torch.testing.assert_close(r.std((0, 1)), torch.ones(SHAPE), rtol=0.1, atol=0)
    torch.testing.assert_close(r.mean((0, 1)), torch.zeros(SHAPE), rtol=0, atol=0.1)
    torch.testing.assert_close(mean.latent(r[1], y["1"][:1].expand(50, -1)), z["1"], rtol=1e-5, atol=1e-5)


def test_a_mean_between_conditions_lies_between_tasks_and_a_penalty_draws_it_to_all() -> None:
    z, y, centres = made(2, False)
    mean, drawn = (Mean(12, SHAPE, 0, False) for _ in range(2))
    mean.fit(z, y, 1e-6)
    drawn.fit(z, y, 1e3)
    between = mean((y["0"] + y["1"]) / 2)
    torch.testing.assert_close(between, centres.mean(0).expand(3, -1, -1), rtol=0, atol=0.05)
    torch.testing.assert_close(drawn(y["0"]), centres.mean(0).expand(3, -1, -1), rtol=0, atol=0.05)
    assert float(drawn.spread.mean()) > 20 * float(mean.spread.mean())  # what the mean misses is spread


@pytest.mark.parametrize("conditions", [1, 3])
@pytest.mark.parametrize("learnable", [False, True])
def test_one_task_has_its_mean_whatever_is_asked(learnable: bool, conditions: int) -> None:
    z, y = {"a": 3 + SPREAD * random(50, *SHAPE)}, {"a": random(1, 12).expand(conditions, -1)}
    mean = Mean(12, SHAPE, 1 if learnable else 0, False)
    mean.fit(z, {"a": torch.zeros(1, 1)} if learnable else y, 1e-3)
    asked = torch.zeros(1, 1) if learnable else random(1, 12, seed=9)
    torch.testing.assert_close(mean(asked)[0], z["a"].mean(0))
    torch.testing.assert_close(mean.spread.data, z["a"].std(0, correction=0))


def test_network_starts_at_zero_and_stands_still_in_reconstruction() -> None:
    (plain, _, y), (mean, _, _) = fitted(3, False), fitted(3, False, network=True)
    assert torch.equal(mean(y["0"]), plain(y["0"]))
    assert mean.network is not None
    assert not any(p.requires_grad for each in (plain, mean) for p in each.parameters())
