"""Arms: what each control draws from, their order, the winner's rule, distances, what figures need of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator, Tensor

from condpdiff.autoencoder.settings import Autoencoder
from condpdiff.autoencoder.train import train
from condpdiff.common.files import read_json, read_tensors
from condpdiff.common.settings import parse
from condpdiff.evaluate.arms import (
    Arm,
    around,
    build_arms,
    distance_to_zoo,
    distances,
    first_best,
    gaussian,
    pca_gaussian,
    soup,
    soup_of,
    spread,
    write_geometry,
    write_trajectories,
)
from condpdiff.evaluate.settings import Eval
from condpdiff.zoo.normalized import Frame, Moments, normalise, statistics_of
from tests.stand_ins import make_layout

LAYOUT = make_layout()
COUNTS = {
    "original": 4, "soup": 1, "soup_16": 4, "gaussian": 4, "pca_gaussian": 4, "checkpoint_noise": 4,
    "ae_reconstruction": 3, "zero_decode": 1, "condpdiff": 5,
}  # fmt: skip
KEYS = {"candidates": 4, "extra_candidates": 3, "select_rows": 10, "pca_axes": 4, "batch_tokens": 128}
PCA = {
    "arch": "pca", "latent_channels": 1, "latent_length": 8, "patch": 1, "width": 1, "depth": 0, "noise": 0,
    "input_noise": 0, "steps": 1, "batch_size": 1, "lr": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def theta() -> Tensor:
    return torch.randn(8, LAYOUT.K, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def arms(theta: Tensor) -> dict[str, Arm]:
    statistics = statistics_of("task", {"films": Moments.of([theta])}, LAYOUT)["films"]
    frame = Frame(statistics, theta.double().mean(0).float(), torch.arange(LAYOUT.K))
    model, _, _ = train(normalise(theta, statistics), parse(Autoencoder, PCA, "params.yaml", "ae"))
    settings = parse(Eval, KEYS, "params.yaml", "eval")
    return build_arms(theta, theta[:5] + 0.01, frame, model, settings)


def test_arms_stand_in_the_order_of_the_report_and_know_their_checkpoints(arms: dict[str, Arm], theta: Tensor) -> None:
    assert [(name, len(arm.vectors)) for name, arm in arms.items()] == list(COUNTS.items())
    assert all(len(arm.checkpoints) == len(arm.vectors) for arm in arms.values())
    assert arms["original"].checkpoints[-1] == 7
    assert torch.equal(arms["original"].vectors, theta[arms["original"].checkpoints])
    rebuilt = arms["ae_reconstruction"]
    torch.testing.assert_close(rebuilt.vectors, theta[rebuilt.checkpoints], rtol=0, atol=1e-4)  # 8 numbers suffice
    assert arms["condpdiff"].checkpoints == [None] * 5
    assert torch.equal(arms["zero_decode"].vectors, arms["soup"].vectors)  # under normalize.method: task
    noisy = arms["checkpoint_noise"]  # as far from its checkpoint as samples are from their nearest one
    assert len(set(noisy.checkpoints)) == 4
    moved = (noisy.vectors - theta[noisy.checkpoints]).norm(dim=1)
    reach = np.median([distance_to_zoo(sample, theta) for sample in arms["condpdiff"].vectors])
    torch.testing.assert_close(moved, torch.full((4,), float(reach)), rtol=1e-3, atol=1e-4)


def test_winner_is_the_best_on_select_and_the_first_of_equals() -> None:
    for select, expected in (([1.0, 3.0, 3.0], 1), ([np.nan, -2.0, -1.0], 2), ([np.nan] * 3, 0)):
        assert first_best(select) == first_best(pd.Series(select, index=[7, 8, 9])) == expected


def test_distance_is_to_the_nearest_checkpoint_and_leaves_out_itself() -> None:
    theta = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])
    assert distance_to_zoo(torch.tensor([0.0, 2.0]), theta) == 2.0
    assert distance_to_zoo(theta[1], theta) == 0.0
    assert distance_to_zoo(theta[1], theta, 1) == 1.0
    assert distance_to_zoo(theta[0], theta[:1], 0) == 0.0  # the only one has no other


def test_geometry_covers_the_zoo_and_every_arm_but_copies(arms: dict[str, Arm], theta: Tensor, tmp_path: Path) -> None:
    write_geometry(tmp_path, arms, theta)
    points = pd.read_csv(tmp_path / "points.csv")
    found = read_tensors(tmp_path / "distances.safetensors")["distances"]
    counts: dict[str, Any] = points["arm"].value_counts(sort=False).to_dict()
    copies = ("original", "zero_decode")
    assert counts == {"checkpoint": 8, **{k: n for k, n in COUNTS.items() if k not in copies}}
    assert found.shape == (len(points), len(points))
    torch.testing.assert_close(found[:9, :9], distances(torch.cat([theta, arms["soup"].vectors])), rtol=1e-4, atol=1e-4)
    assert set(read_json(tmp_path / "spread.json")) == set(counts) - {"soup"}


@pytest.mark.parametrize("count", [2, 0])
def test_trajectories_lie_among_checkpoints_and_soup(theta: Tensor, tmp_path: Path, count: int) -> None:
    paths = torch.randn(count, 3, LAYOUT.K, generator=generator())
    write_trajectories(tmp_path, theta, paths)
    table = pd.read_csv(tmp_path / "trajectories.csv")
    assert table["arm"].tolist() == ["checkpoint"] * 8 + ["soup"] + ["condpdiff"] * 3 * count
    assert table["candidate"].tolist() == [*range(8), 0, *(i for i in range(count) for _ in range(3))]
    assert table["point"][9:].tolist() == [0, 1, 2] * count and table["point"][:9].isna().all()
    vectors = torch.cat([theta, theta.mean(0, keepdim=True), paths.flatten(0, 1)])
    found = read_tensors(tmp_path / "trajectories.safetensors")["distances"]
    torch.testing.assert_close(found, distances(vectors), rtol=1e-4, atol=1e-4)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def make_zoo(count: int = 12, width: int = 40) -> Tensor:
    return 1 + torch.randn(count, width, generator=generator(9)) * torch.linspace(0.1, 2, width)


THETA = make_zoo()


def test_soup_is_the_mean_of_all_or_of_some_without_repeats() -> None:
    torch.testing.assert_close(soup(THETA)[0].double(), THETA.double().mean(0), rtol=1e-6, atol=1e-6)
    found = soup_of(THETA, 3, 5, generator())
    assert found.shape == (5, 40) and len(found.unique(dim=0)) == 5
    torch.testing.assert_close(soup_of(THETA, 99, 1, generator()), soup(THETA))  # no more than there are


def test_gaussian_has_the_mean_and_std_of_each_coordinate() -> None:
    found, std = gaussian(THETA, 20_000, generator()), THETA.std(0, correction=0)
    torch.testing.assert_close(found.std(0), std, rtol=0.03, atol=0)
    assert ((found.mean(0) - THETA.mean(0)).abs() < 0.04 * std).all()


@pytest.mark.parametrize("axes", [5, 32])
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
    assert len(found.unique(dim=0)) == 30


@pytest.mark.filterwarnings("error")
def test_spread_is_the_root_mean_square_distance_to_the_mean() -> None:
    assert spread(torch.tensor([[0.0, 0.0], [2.0, 0.0]])) == 1.0
    assert spread(torch.zeros(3, 4)) == spread(torch.ones(1, 4)) == 0.0


def test_distances_of_near_copies_are_exact() -> None:
    centre = 10 + torch.randn(1, 5000, generator=generator()).double()
    near = (centre + 1e-4 * torch.randn(4, 5000, generator=generator(1)).double()).float()
    found = distances(near)
    torch.testing.assert_close(found.double(), torch.cdist(near.double(), near.double()), rtol=1e-4, atol=0)
    assert torch.equal(found.diagonal(), torch.zeros(4)) and torch.equal(found, found.T)
