"""Controls in weight space: what each draws from, and exact distances."""

import pytest
import torch
from torch import Generator, Tensor

from condpdiff.common.axes import evenly_spaced
from condpdiff.evaluate.controls import around, distances, gaussian, pca_gaussian, soup, soup_of, spread


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def make_zoo(count: int = 12, width: int = 40) -> Tensor:
    return 1 + torch.randn(count, width, generator=generator(9)) * torch.linspace(0.1, 2, width)


def test_soup_is_the_mean() -> None:
    theta = make_zoo()
    assert soup(theta).shape == (1, 40)
    torch.testing.assert_close(soup(theta)[0].double(), theta.double().mean(0), rtol=1e-6, atol=1e-6)


def test_soup_of_identical_checkpoints_is_that_checkpoint() -> None:
    theta = make_zoo(1).expand(7, -1)
    assert torch.equal(soup(theta)[0], theta[0])
    assert torch.equal(soup_of(theta, 3, 4, generator()), theta[:4])


def test_soup_of_some_takes_different_checkpoints_without_repeats() -> None:
    theta = make_zoo()
    found = soup_of(theta, 3, 5, generator())
    assert found.shape == (5, 40)
    assert len({tuple(row.tolist()) for row in found}) == 5
    torch.testing.assert_close(soup_of(theta, 12, 2, generator()), soup(theta).expand(2, -1))
    torch.testing.assert_close(soup_of(theta, 99, 1, generator()), soup(theta))  # no more than there are


def test_gaussian_has_the_mean_and_std_of_each_coordinate() -> None:
    theta = make_zoo()
    found = gaussian(theta, 20_000, generator())
    std = theta.std(0, correction=0)
    torch.testing.assert_close(found.std(0), std, rtol=0.03, atol=0)
    assert ((found.mean(0) - theta.mean(0)).abs() < 0.04 * std).all()


def test_gaussian_round_one_checkpoint_is_that_checkpoint() -> None:
    assert torch.equal(gaussian(make_zoo(1), 3, generator()), make_zoo(1).expand(3, -1))


@pytest.mark.parametrize("axes", [1, 5, 32])
def test_pca_gaussian_stays_in_the_affine_span_of_the_zoo(axes: int) -> None:
    theta = make_zoo()
    found = pca_gaussian(theta, axes, 6, generator())
    assert found.shape == (6, 40)
    centred = (theta - theta.mean(0)).double()
    basis = torch.linalg.svd(centred, full_matrices=False).Vh[: min(axes, 11)]
    offsets = (found - theta.mean(0)).double()
    torch.testing.assert_close(offsets @ basis.T @ basis, offsets, rtol=0, atol=1e-4)


def test_pca_gaussian_has_the_variance_of_the_zoo_along_each_axis() -> None:
    theta = make_zoo()
    centred = theta - theta.mean(0)
    basis = torch.linalg.svd(centred, full_matrices=False).Vh[:11]
    found = (pca_gaussian(theta, 32, 20_000, generator()) - theta.mean(0)) @ basis.T
    torch.testing.assert_close(found.std(0), (centred @ basis.T).std(0, correction=0), rtol=0.04, atol=0)


@pytest.mark.filterwarnings("error")
def test_pca_gaussian_of_one_checkpoint_is_that_checkpoint() -> None:
    torch.testing.assert_close(pca_gaussian(make_zoo(1), 4, 3, generator()), make_zoo(1).expand(3, -1))


def test_noise_round_checkpoints_has_the_length_asked_for_and_goes_where_the_zoo_varies() -> None:
    theta = make_zoo()
    theta[:, 7] = 3.0  # never varies
    found, picks = around(theta, 2.5, 30, generator())
    torch.testing.assert_close((found - theta[picks]).norm(dim=1), torch.full((30,), 2.5))
    assert (found[:, 7] == 3.0).all()
    assert len(set(picks[:12].tolist())) == 12 and len(set(picks[12:24].tolist())) == 12  # each, before any again
    assert len({tuple(row.tolist()) for row in found}) == 30


def test_noise_round_a_single_checkpoint_is_that_checkpoint() -> None:
    found, picks = around(make_zoo(1), 2.5, 2, generator())
    assert torch.equal(found, make_zoo(1).expand(2, -1)) and picks.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [(10, 4, [0, 3, 6, 9]), (5, 5, [0, 1, 2, 3, 4]), (3, 20, [0, 1, 2]), (7, 1, [6]), (1, 5, [0]), (150, 2, [0, 149])],
)
def test_evenly_spaced_indices_include_the_last(total: int, count: int, expected: list[int]) -> None:
    assert evenly_spaced(total, count).tolist() == expected


@pytest.mark.parametrize("total", [20, 33, 150, 200])
def test_evenly_spaced_indices_are_different_and_in_order(total: int) -> None:
    found = evenly_spaced(total, 20)
    assert len(found) == 20
    assert (found.diff() > 0).all()


@pytest.mark.filterwarnings("error")
def test_spread_is_the_root_mean_square_distance_to_the_mean() -> None:
    assert spread(torch.tensor([[0.0, 0.0], [2.0, 0.0]])) == 1.0
    assert spread(torch.zeros(3, 4)) == 0.0
    assert spread(torch.ones(1, 4)) == 0.0
    theta = make_zoo()
    assert spread(theta) == pytest.approx(float(theta.var(0, correction=0).sum().sqrt()), rel=1e-5)


def test_distances_of_near_copies_are_exact() -> None:
    centre = 10 + torch.randn(1, 5000, generator=generator()).double()
    near = centre + 1e-4 * torch.randn(4, 5000, generator=generator(1)).double()
    found = distances(near.float())
    expected = torch.cdist(near.float().double(), near.float().double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)
    assert torch.equal(found.diagonal(), torch.zeros(4))
    assert torch.equal(found, found.T)


def test_draws_are_decided_by_the_generator() -> None:
    theta = make_zoo()
    for draw in (
        lambda g: soup_of(theta, 3, 4, g),
        lambda g: gaussian(theta, 4, g),
        lambda g: pca_gaussian(theta, 5, 4, g),
        lambda g: around(theta, 1.0, 4, g)[0],
    ):
        assert torch.equal(draw(generator()), draw(generator()))
        assert not torch.equal(draw(generator()), draw(generator(1)))
