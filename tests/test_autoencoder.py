"""The three autoencoders: they learn what they can, and a file of weights gives back the same functions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from condpdiff.autoencoder import (
    ARCHITECTURES,
    Autoencoder,
    build,
    config_of,
    decode_all,
    encode_all,
    load,
    principal_axes,
    save,
)
from condpdiff.params.ae import Autoencoder as Settings
from condpdiff.params.section import parse
from condpdiff.train_autoencoder import reconstruction_error, train
from condpdiff.training import fit


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
    w = random(5, width)
    z = model.encode(w)
    assert z.shape == (5, 2, 4)
    assert model.decode(z).shape == w.shape


@pytest.mark.parametrize("arch", ["conv1d", "pdiff"])
def test_one_vector_is_overfitted_by_gradient_steps(arch: str) -> None:
    torch.manual_seed(0)
    w = random(1, 70)
    model = build(config_of(make_settings(arch=arch), 70)).train()  # without the closed-form start
    before = reconstruction_error(model.eval(), w)
    model.train()
    rows = w.expand(8, -1)
    fit(model.parameters(), lambda: model.loss(rows, 0.001, 0.0), steps=150, lr=0.01, what="test")
    assert reconstruction_error(model.eval(), w) < 0.02 * before


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_training_on_one_checkpoint_gives_it_back(arch: str) -> None:
    w = random(1, 70)
    model, _, curve = train(w, make_settings(arch=arch))
    assert reconstruction_error(model, w) < 0.02
    assert torch.isfinite(encode_all(model, w)).all()
    assert curve["loss"].notna().all()


def test_w_of_zeros_is_learned_without_a_division_by_zero() -> None:
    for arch in ARCHITECTURES:
        model, _, _ = train(torch.zeros(3, 40), make_settings(arch=arch, steps=30))
        assert torch.isfinite(decode_all(model, encode_all(model, torch.zeros(3, 40)))).all()


def test_conv1d_starts_as_a_linear_autoencoder_with_whitened_latents() -> None:
    w = low_rank(40, 64, rank=3)
    model = build(config_of(make_settings(), 64)).eval()
    assert not model.fit_closed_form(w)
    assert reconstruction_error(model, w) < 1e-6 * float(w.var())
    z = encode_all(model, w).flatten(1)
    torch.testing.assert_close(z.std(0, correction=0)[:3], torch.ones(3), rtol=1e-3, atol=0)


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
    assert float(model.loss(w, 0.0, 0.0)) < 1e-8
    torch.manual_seed(0)
    noisy = float(model.loss(w, 0.5, 0.0))  # 29 orthonormal axes in 40 coordinates
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


def test_many_rows_give_what_few_give() -> None:
    w = random(130, 45)
    model: Autoencoder = build(config_of(make_settings(), 45)).eval()
    z = encode_all(model, w)
    torch.testing.assert_close(z[100:], encode_all(model, w[100:]))
    torch.testing.assert_close(decode_all(model, z)[100:], decode_all(model, z[100:]))
