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


THETA, ONE = make_zoo(), make_zoo(1)
DRAWS = {
    "soup_of": lambda theta, g: soup_of(theta, 3, 4, g),
    "gaussian": lambda theta, g: gaussian(theta, 4, g),
    "pca_gaussian": lambda theta, g: pca_gaussian(theta, 5, 4, g),
    "around": lambda theta, g: around(theta, 2.5, 4, g)[0],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_decided_by_the_generator_and_those_round_one_checkpoint_are_that_one(name: str) -> None:
    draw = DRAWS[name]
    assert torch.equal(draw(THETA, generator()), draw(THETA, generator()))
    assert not torch.equal(draw(THETA, generator()), draw(THETA, generator(1)))
    torch.testing.assert_close(draw(ONE, generator()), ONE.expand(len(draw(ONE, generator())), -1))


def test_soup_is_the_mean_of_all_or_of_some_without_repeats() -> None:
    torch.testing.assert_close(soup(THETA)[0].double(), THETA.double().mean(0), rtol=1e-6, atol=1e-6)
    assert torch.equal(soup(ONE.expand(7, -1)), ONE)
    found = soup_of(THETA, 3, 5, generator())
    assert found.shape == (5, 40)
    assert len({tuple(row.tolist()) for row in found}) == 5
    torch.testing.assert_close(soup_of(THETA, 12, 2, generator()), soup(THETA).expand(2, -1))
    torch.testing.assert_close(soup_of(THETA, 99, 1, generator()), soup(THETA))  # no more than there are


def test_gaussian_has_the_mean_and_std_of_each_coordinate() -> None:
    found, std = gaussian(THETA, 20_000, generator()), THETA.std(0, correction=0)
    torch.testing.assert_close(found.std(0), std, rtol=0.03, atol=0)
    assert ((found.mean(0) - THETA.mean(0)).abs() < 0.04 * std).all()


@pytest.mark.parametrize("axes", [1, 5, 32])
def test_pca_gaussian_stays_in_the_affine_span_of_the_zoo_with_its_variance(axes: int) -> None:
    found = pca_gaussian(THETA, axes, 20_000, generator()) - THETA.mean(0)
    centred = THETA - THETA.mean(0)
    basis = torch.linalg.svd(centred, full_matrices=False).Vh[: min(axes, 11)]
    torch.testing.assert_close(found @ basis.T @ basis, found, rtol=0, atol=1e-4)
    torch.testing.assert_close((found @ basis.T).std(0), (centred @ basis.T).std(0, correction=0), rtol=0.04, atol=0)


def test_noise_round_checkpoints_has_the_length_asked_for_and_goes_where_the_zoo_varies() -> None:
    theta = make_zoo()
    theta[:, 7] = 3.0  # never varies
    found, picks = around(theta, 2.5, 30, generator())
    torch.testing.assert_close((found - theta[picks]).norm(dim=1), torch.full((30,), 2.5))
    assert (found[:, 7] == 3.0).all()
    assert len(set(picks[:12].tolist())) == 12 and len(set(picks[12:24].tolist())) == 12  # each, before any again
    assert len({tuple(row.tolist()) for row in found}) == 30


@pytest.mark.parametrize(
    ("total", "count", "expected"), [(10, 4, [0, 3, 6, 9]), (3, 20, [0, 1, 2]), (7, 1, [6]), (150, 2, [0, 149])]
)
def test_evenly_spaced_indices_include_the_last(total: int, count: int, expected: list[int]) -> None:
    assert evenly_spaced(total, count).tolist() == expected


@pytest.mark.filterwarnings("error")
def test_spread_is_the_root_mean_square_distance_to_the_mean() -> None:
    assert spread(torch.tensor([[0.0, 0.0], [2.0, 0.0]])) == 1.0
    assert spread(torch.zeros(3, 4)) == spread(torch.ones(1, 4)) == 0.0
    assert spread(THETA) == pytest.approx(float(THETA.var(0, correction=0).sum().sqrt()), rel=1e-5)


def test_distances_of_near_copies_are_exact() -> None:
    centre = 10 + torch.randn(1, 5000, generator=generator()).double()
    near = (centre + 1e-4 * torch.randn(4, 5000, generator=generator(1)).double()).float()
    found = distances(near)
    torch.testing.assert_close(found.double(), torch.cdist(near.double(), near.double()), rtol=1e-4, atol=0)
    assert torch.equal(found.diagonal(), torch.zeros(4)) and torch.equal(found, found.T)
