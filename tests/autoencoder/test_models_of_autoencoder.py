"""The three autoencoders: they learn what they can, and a file of weights gives back the same functions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from condpdiff.autoencoder.models import (
    ARCHITECTURES,
    build,
    config_of,
    decode_all,
    encode_all,
    load,
    principal_axes,
    save,
)
from condpdiff.autoencoder.settings import Autoencoder as Settings
from condpdiff.autoencoder.train import reconstruction_error, train
from condpdiff.common import axes
from condpdiff.common.matrices import RowFile, row_writer
from condpdiff.common.settings import parse
from condpdiff.common.training import adamw, fit


def make_settings(**changes: Any) -> Settings:
    settings = {"arch": "conv1d", "latent_channels": 2, "latent_length": 4, "patch": 16, "width": 4, "depth": 1}
    settings |= {"noise": 0.001, "input_noise": 0.0, "steps": 100, "batch_size": 8, "lr": 0.01}
    return parse(Settings, settings | changes, "params.yaml", "ae")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def low_rank(count: int, width: int, rank: int) -> Tensor:
    """Rows of a random affine space of `rank` dimensions."""
    return random(count, rank) @ random(rank, width, seed=1) + random(width, seed=2)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("width", [96, 101, 7])
def test_shapes_hold_when_k_is_no_multiple_of_a_patch_or_stride(arch: str, width: int) -> None:
    model = build(config_of(make_settings(arch=arch), width)).eval()
    w = random(130, width)
    z = model.encode(w[:5])
    assert z.shape == (5, 2, 4)
    assert model.decode(z).shape == (5, width)
    every = encode_all(model, w)  # in batches
    torch.testing.assert_close(every[100:], encode_all(model, w[100:]))
    torch.testing.assert_close(decode_all(model, every)[100:], decode_all(model, every[100:]))


@pytest.mark.parametrize("arch", ["conv1d", "pdiff"])
def test_one_vector_is_overfitted_by_gradient_steps(arch: str) -> None:
    torch.manual_seed(0)
    w = random(1, 70)
    model = build(config_of(make_settings(arch=arch), 70)).train()  # without the closed-form start
    before = reconstruction_error(model.eval(), w)
    model.train()
    rows = w.expand(8, -1)
    optimizer = adamw(model.parameters(), 0.01)
    fit(model, lambda network, _: network(rows, 0.001, 0.0), optimizer, steps=150, what="test")
    assert reconstruction_error(model.eval(), w) < 0.02 * before


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_training_on_one_checkpoint_gives_it_back_and_zeros_divide_nothing(arch: str) -> None:
    for w, settings in ((random(1, 70), {}), (torch.zeros(3, 40), {"steps": 30})):
        model, _, curve = train(w, make_settings(arch=arch, **settings))
        assert reconstruction_error(model, w) < 0.02
        assert torch.isfinite(encode_all(model, w)).all()
        assert curve["loss"].notna().all()


def test_conv1d_starts_as_a_linear_autoencoder_with_whitened_latents() -> None:
    w = low_rank(40, 64, rank=3)
    torch.manual_seed(0)
    model = build(config_of(make_settings(), 64)).eval()
    assert not model.fit_closed_form(w)
    assert reconstruction_error(model, w) < 1e-6 * float(w.var())
    z = encode_all(model, w).flatten(1)
    torch.testing.assert_close(z.std(0, correction=0)[:3], torch.ones(3), rtol=1e-3, atol=0)
    torch.testing.assert_close(z.mean(0), torch.zeros(8), rtol=0, atol=1e-3)


def test_training_lowers_the_loss_of_conv1d() -> None:
    w = random(30, 64)
    model, _, curve = train(w, make_settings(steps=200))
    assert curve["loss"].iloc[-1] < curve["loss"].iloc[0]
    start = build(config_of(make_settings(), 64)).eval()
    start.fit_closed_form(w)
    assert reconstruction_error(model, w) < reconstruction_error(start, w)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_training_is_reproducible_by_its_seed(arch: str) -> None:
    w = random(10, 50)
    one, two, other = (train(w, make_settings(arch=arch, steps=10, seed=seed))[0] for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    if arch != "pca":
        pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        assert not all(torch.equal(a, b) for a, b in pairs)


def test_random_start_skips_the_closed_form() -> None:
    w = low_rank(40, 64, rank=3)
    pca, other = (train(w, make_settings(start=start, steps=1, lr=1e-9))[0] for start in ("pca", "random"))
    assert reconstruction_error(pca, w) < 0.5 * reconstruction_error(other, w)


# --- rows that are read in parts ----------------------------------------------------------------


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RowFile:
    """130 rows of 101 weights, in parts of 7 rows; a closed form sees three patches at a time."""
    monkeypatch.setattr("condpdiff.common.matrices.PART_BYTES", 7 * 4 * 101)
    monkeypatch.setattr(axes, "GROUP_BYTES", 3 * 4 * 16 * 130)
    with row_writer(tmp_path / "w", "w", (130, 101)) as write:
        write(low_rank(130, 101, rank=6))
    return RowFile(tmp_path / "w", "w")


@pytest.mark.parametrize("arch", ["conv1d", "pca"])
def test_closed_form_from_disk_equals_that_from_memory(on_disk: RowFile, arch: str) -> None:
    w = low_rank(130, 101, rank=6)
    models = []
    for rows in (w, on_disk):
        torch.manual_seed(0)
        models.append(build(config_of(make_settings(arch=arch), 101)).eval())
        models[-1].fit_closed_form(rows)
    one, two = (model.state_dict() for model in models)
    assert all(torch.equal(one[key], two[key]) for key in one)
    torch.testing.assert_close(encode_all(models[1], on_disk), encode_all(models[0], w), rtol=1e-4, atol=1e-4)
    assert reconstruction_error(models[1], on_disk) == pytest.approx(reconstruction_error(models[0], w), rel=1e-3)


@pytest.mark.parametrize("arch", ["conv1d", "pca"])
def test_closed_form_of_more_rows_than_it_looks_at(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axes, "CLOSED_FORM_ROWS", 20)
    w = low_rank(130, 64, rank=3)
    model = build(config_of(make_settings(arch=arch), 64)).eval()
    model.fit_closed_form(w)
    assert reconstruction_error(model, w) < 1e-6 * float(w.var())


def test_rows_that_a_closed_form_looks_at_are_spread_over_all() -> None:
    assert torch.equal(axes.evenly_spaced(7, axes.CLOSED_FORM_ROWS), torch.arange(7))
    found = axes.evenly_spaced(20_000, axes.CLOSED_FORM_ROWS)
    assert len(found) == axes.CLOSED_FORM_ROWS == len(found.unique())
    assert int(found[0]) == 0 and int(found[-1]) >= 20_000 - 20
    assert set(found.diff().tolist()) == {19, 20}


# --- pca ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "width", "latent"), [(5, 60, 4), (8, 200, 8), (8, 200, 16), (30, 50, 60)])
def test_pca_is_exact_when_the_latent_holds_the_rank(count: int, width: int, latent: int) -> None:
    w = random(count, width)
    model, _, _ = train(w, make_settings(arch="pca", latent_channels=1, latent_length=latent))
    torch.testing.assert_close(decode_all(model, encode_all(model, w)), w, rtol=0, atol=1e-5)


@pytest.mark.parametrize("latent", [4, 12, 24])
def test_pca_error_equals_that_of_sklearn(latent: int) -> None:
    w = random(30, 80) + 3.0
    model, _, curve = train(w, make_settings(arch="pca", latent_channels=1, latent_length=latent))
    reference = PCA(latent, svd_solver="full").fit(w.double().numpy())
    rebuilt = reference.inverse_transform(reference.transform(w.double().numpy()))
    expected = ((rebuilt - w.double().numpy()) ** 2).mean()
    assert reconstruction_error(model, w) == pytest.approx(expected, rel=1e-4)
    assert curve["loss"].tolist() == [reconstruction_error(model, w)]


@pytest.mark.parametrize("spread", [1.0, 1e-2])
def test_principal_axes_are_orthonormal_even_when_more_are_asked_than_the_rank(spread: float) -> None:
    w = 1 + spread * random(10, 300)
    axes = principal_axes(w - w.mean(0), 16)
    assert 9 <= len(axes) <= 10
    torch.testing.assert_close(axes @ axes.T, torch.eye(len(axes)), rtol=0, atol=1e-4)


def test_principal_axes_of_one_row_are_none() -> None:
    assert principal_axes(torch.zeros(1, 20), 4).shape == (0, 20)


# --- loss, files, batches -----------------------------------------------------------------------


def test_loss_is_the_mean_squared_error_and_noise_falls_on_the_latent() -> None:
    w = random(30, 40)
    model, _, _ = train(w, make_settings(arch="pca", latent_channels=1, latent_length=40))
    assert float(model(w, 0.0, 0.0)) < 1e-8
    torch.manual_seed(0)
    noisy = float(model(w, 0.5, 0.0))  # 29 orthonormal axes in 40 coordinates
    assert noisy == pytest.approx(0.25 * 29 / 40, rel=0.15)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_saved_autoencoder_computes_the_same(arch: str, tmp_path: Path) -> None:
    w = random(12, 45)
    model, config, _ = train(w, make_settings(arch=arch, steps=5))
    save(tmp_path / "a.safetensors", model, config)
    found = load(tmp_path / "a.safetensors")
    assert type(found) is ARCHITECTURES[arch]
    assert not found.training
    assert not any(p.requires_grad for p in found.parameters())
    assert torch.equal(encode_all(found, w), encode_all(model, w))
    z = encode_all(model, w)
    assert torch.equal(decode_all(found, z), decode_all(model, z))
