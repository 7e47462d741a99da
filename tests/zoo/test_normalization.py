"""Task normalisation: statistics against float64, and an exact way back for every method."""

import numpy as np
import pytest
import torch
from torch import Tensor

from condpdiff.zoo.normalization import EPS, METHODS, Moments, Statistics, denormalise, normalise, statistics_of
from condpdiff.zoo.settings import SHARED
from tests.stand_ins import make_layout

LAYOUT = make_layout()


def zoos(count: int = 9) -> dict[str, Tensor]:
    """Two tasks of near-copies: a coordinate's std is small beside its mean, as in a real zoo."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for task, shift in (("a", 0.5), ("b", -2.0)):
        centre = shift + torch.randn(LAYOUT.K, generator=generator)
        found[task] = centre + 1e-3 * torch.randn(count, LAYOUT.K, generator=generator)
    return found


def found_of(method: str, theta: dict[str, Tensor], rows: int = 4) -> dict[str, Statistics]:
    """Statistics from parts of a few rows."""
    return statistics_of(method, {task: Moments.of(t.split(rows)) for task, t in theta.items()}, LAYOUT)


def expected(method: str, theta: dict[str, Tensor], task: str) -> tuple[np.ndarray, np.ndarray]:
    """mean and std [K] in float64."""
    own = theta[task].double().numpy()
    if method == "none":
        return np.zeros(LAYOUT.K), np.ones(LAYOUT.K)
    if method == "task":
        return own.mean(0), own.std(0)
    if method == "task_scalar":
        return np.full(LAYOUT.K, own.mean()), np.full(LAYOUT.K, own.std())
    if method == "batch":
        both = np.concatenate([rows.double().numpy() for rows in theta.values()])
        return both.mean(0), both.std(0)
    if method == "shared":
        each = [rows.double().numpy() for rows in theta.values()]
        return np.mean([rows.mean(0) for rows in each], 0), np.sqrt(np.mean([rows.var(0) for rows in each], 0))
    parts = [own[:, e.slice] for e in LAYOUT.entries]
    sizes = [e.size for e in LAYOUT.entries]
    return np.repeat([p.mean() for p in parts], sizes), np.repeat([p.std() for p in parts], sizes)


@pytest.mark.parametrize("method", METHODS)
def test_statistics_equal_those_of_float64(method: str) -> None:
    theta = zoos()
    for task, found in found_of(method, theta).items():
        mean, std = expected(method, theta, task)
        np.testing.assert_allclose(found.mean.numpy(), mean, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found.std.numpy(), std, rtol=1e-6)
        assert found.mean.dtype == found.std.dtype == torch.float32


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("method", METHODS)
def test_denormalise_undoes_normalise_and_touches_nothing(method: str, count: int) -> None:
    theta = zoos(count)
    before = {task: rows.clone() for task, rows in theta.items()}
    found = found_of(method, theta)
    for task, statistics in found.items():
        back = denormalise(normalise(theta[task], statistics), statistics)
        torch.testing.assert_close(back, theta[task], rtol=1e-6, atol=1e-6)
        assert torch.equal(theta[task], before[task])
    assert torch.equal(found["a"].mean, found["b"].mean) == (method in SHARED)


def test_task_gives_mean_0_and_std_1_and_zero_decodes_to_the_soup_exactly() -> None:
    theta = zoos(50)
    for task, statistics in found_of("task", theta).items():
        w = normalise(theta[task], statistics).double()
        torch.testing.assert_close(w.mean(0), torch.zeros(LAYOUT.K).double(), rtol=0, atol=2e-3)
        torch.testing.assert_close(w.std(0, correction=0), torch.ones(LAYOUT.K).double(), rtol=2e-3, atol=0)
        soup = theta[task].double().mean(0).float()
        assert torch.equal(denormalise(torch.zeros(1, LAYOUT.K), statistics)[0], soup)


def test_shared_weighs_tasks_alike_and_measures_them_in_their_own_spread() -> None:
    theta = zoos()
    alone = found_of("shared", {"a": theta["a"], "b": theta["b"][:1].expand(9, -1)})["a"]
    task, more = found_of("task", theta), found_of("shared", {"a": theta["a"].repeat(5, 1), "b": theta["b"]})["a"]
    shared = found_of("shared", theta)["a"]
    torch.testing.assert_close(shared.mean, (task["a"].mean + task["b"].mean) / 2)
    torch.testing.assert_close(more.mean, shared.mean)  # a task of more checkpoints weighs no more
    torch.testing.assert_close(alone.std, task["a"].std / 2**0.5)  # the other one has no spread
    w = {name: normalise(rows, shared) for name, rows in theta.items()}
    within = torch.stack([rows.var(0, correction=0) for rows in w.values()]).mean(0)
    torch.testing.assert_close(within, torch.ones(LAYOUT.K), rtol=1e-3, atol=0)
    assert float((w["a"].mean(0) - w["b"].mean(0)).square().mean().sqrt()) > 1000  # spreads between the tasks


def test_one_checkpoint_and_a_weight_that_never_moved_have_w_of_0_and_any_w_decodes_to_them() -> None:
    one, theta = zoos(1)["a"], zoos()["a"]
    theta[:, 3] = 0.25
    alone, still = found_of("task", {"a": one})["a"], found_of("task", {"a": theta})["a"]
    assert torch.equal(normalise(one, alone), torch.zeros(1, LAYOUT.K))
    back = denormalise(torch.randn(4, LAYOUT.K), alone)
    torch.testing.assert_close(back, one.expand(4, -1), rtol=0, atol=10 * EPS)
    w = normalise(theta, still)
    assert torch.isfinite(w).all()
    assert torch.equal(w[:, 3], torch.zeros(len(w)))
    assert float(denormalise(3 * torch.ones(1, LAYOUT.K), still)[0, 3]) == pytest.approx(0.25, abs=1e-7)


def test_statistics_of_more_coordinates_than_a_slice_are_whole() -> None:
    theta = torch.randn(30, 70_000, generator=torch.Generator().manual_seed(0))
    found = Moments.of([theta]).statistics()
    torch.testing.assert_close(found.mean, theta.double().mean(0).float())
    torch.testing.assert_close(found.std, theta.double().std(0, correction=0).float())


# --- moments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[200], [1] * 200, [199, 1], [1, 199], [64, 64, 64, 8]])
def test_moments_of_parts_equal_two_passes_in_float64(sizes: list[int]) -> None:
    """Of a small variation beside a large mean, in float32 and in float64, which stays as it was."""
    theta = 1000 + 1e-3 * torch.randn(200, 17, generator=torch.Generator().manual_seed(0))
    for rows in (theta, theta.double()):
        values = rows.double().numpy().copy()
        found = Moments.of(rows.split(sizes))
        assert found.count == 200
        np.testing.assert_allclose(found.mean.numpy(), values.mean(0), rtol=1e-14)
        np.testing.assert_allclose(found.m2.numpy(), ((values - values.mean(0)) ** 2).sum(0), rtol=1e-7)
        np.testing.assert_allclose(found.statistics().std.numpy(), values.std(0), rtol=1e-6)
        np.testing.assert_array_equal(rows.double().numpy(), values)


def test_pooled_moments_are_those_of_all_values_together_and_chosen_ones_theirs() -> None:
    theta = 5 + torch.randn(9, 13, generator=torch.Generator().manual_seed(0))
    found, values = Moments.of(theta.split(2)).pooled(), theta.double().numpy()
    assert found.count == values.size
    np.testing.assert_allclose(found.mean.numpy(), [values.mean()], rtol=1e-12)
    np.testing.assert_allclose(found.m2.numpy(), [((values - values.mean()) ** 2).sum()], rtol=1e-12)
    positions = torch.tensor([2, 3, 11])
    some, theirs = Moments.of([theta]).at(positions), Moments.of([theta[:, positions]])
    torch.testing.assert_close(some.mean, theirs.mean)
    torch.testing.assert_close(some.m2, theirs.m2)
