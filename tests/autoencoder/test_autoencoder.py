"""The autoencoders learn what they can, from memory as from disk; files give back the same functions; latents."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder import train as train_autoencoder
from condpdiff.autoencoder.models import ARCHITECTURES, Autoencoder, Scale, build, config_of, decode_all, encode_all
from condpdiff.autoencoder.settings import Autoencoder as Settings
from condpdiff.autoencoder.train import reconstruction_error, train
from condpdiff.common import matrices
from condpdiff.common.matrices import Joined, RowFile, row_writer
from condpdiff.common.settings import parse
from tests.messages import message_of
from tests.tensors import random


def make_settings(**changes: Any) -> Settings:
    settings = {"arch": "conv1d", "latent_channels": 2, "latent_length": 4, "patch": 16, "width": 4, "depth": 1}
    settings |= {"noise": 0.001, "input_noise": 0.0, "steps": 100, "batch_size": 8, "lr": 0.01}
    return parse(Settings, settings | changes, "params.yaml", "ae")


def untrained(width: int, **changes: Any) -> Autoencoder:
    torch.manual_seed(0)
    return build(config_of(make_settings(**changes), width)).eval()


def same(one: Autoencoder, two: Autoencoder) -> bool:
    return all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))


def low_rank(count: int, width: int, rank: int) -> Tensor:
    """Rows of a random affine space of `rank` dimensions."""
    return random(count, rank) @ random(rank, width, seed=1) + random(width, seed=2)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("width", [101, 7])
def test_shapes_hold_when_k_is_no_multiple_of_a_patch_or_stride(arch: str, width: int) -> None:
    model, w = untrained(width, arch=arch), random(130, width)
    z = model.encode(w[:5])
    assert z.shape == (5, 2, 4)
    assert model.decode(z).shape == (5, width)
    every = encode_all(model, w)  # in batches
    torch.testing.assert_close(every[100:], encode_all(model, w[100:]))
    torch.testing.assert_close(decode_all(model, every)[100:], decode_all(model, every[100:]))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_training_on_one_checkpoint_gives_it_back_and_zeros_divide_nothing(arch: str) -> None:
    for w, settings in ((random(1, 70), {}), (torch.zeros(3, 40), {"steps": 30})):
        model, _, curve = train(w, make_settings(arch=arch, **settings))
        assert reconstruction_error(model, w) < 0.02
        assert torch.isfinite(encode_all(model, w)).all()
        assert curve["loss"].notna().all()


def test_conv1d_starts_as_a_linear_autoencoder_with_whitened_latents_unless_told() -> None:
    w, model = low_rank(40, 64, rank=3), untrained(64)
    assert not model.fit_closed_form(w)
    assert reconstruction_error(model, w) < 1e-6 * float(w.var())
    z = encode_all(model, w).flatten(1)
    torch.testing.assert_close(z.std(0, correction=0)[:3], torch.ones(3), rtol=1e-3, atol=0)
    torch.testing.assert_close(z.mean(0), torch.zeros(8), rtol=0, atol=1e-3)
    pca, other = (train(w, make_settings(start=start, steps=1, lr=1e-9))[0] for start in ("pca", "random"))
    assert reconstruction_error(pca, w) < 0.5 * reconstruction_error(other, w)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_training_is_reproducible_by_its_seed_and_what_is_saved_computes_the_same(arch: str, tmp_path: Path) -> None:
    w = random(10, 50)
    one, two, other = (train(w, make_settings(arch=arch, steps=10, seed=seed)) for seed in (0, 0, 1))
    assert same(one[0], two[0]) and same(one[0], other[0]) == (arch == "pca")
    autoencoder.save(tmp_path / "a.safetensors", *one[:2])
    found, z = autoencoder.load(tmp_path / "a.safetensors"), encode_all(one[0], w)
    assert type(found) is ARCHITECTURES[arch]
    assert not found.training and not any(p.requires_grad for p in found.parameters())
    assert torch.equal(encode_all(found, w), z) and torch.equal(decode_all(found, z), decode_all(one[0], z))


def test_loss_is_the_mean_squared_error_and_noise_falls_on_the_latent() -> None:
    w = random(30, 40)
    model, _, _ = train(w, make_settings(arch="pca", latent_channels=1, latent_length=40))
    assert float(model(w, 0.0, 0.0)) < 1e-8  # the latent holds the rank
    torch.manual_seed(0)
    noisy = float(model(w, 0.5, 0.0))  # 29 orthonormal axes in 40 coordinates
    assert noisy == pytest.approx(0.25 * 29 / 40, rel=0.15)


# --- rows that are read in parts ----------------------------------------------------------------

WIDTH = 70
COUNTS = (9, 14)


@pytest.fixture
def rows(tmp_path: Path) -> Joined:
    """Two tasks' rows on disk."""
    for count in COUNTS:
        with row_writer(tmp_path / str(count), "w", (count, WIDTH)) as write:
            write(random(count, WIDTH, seed=count))
    return Joined([RowFile(tmp_path / str(count), "w") for count in COUNTS])


@pytest.mark.parametrize("changes", [{"arch": "pdiff"}, {"start": "random"}])
def test_rows_on_disk_train_the_same(
    rows: Joined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    settings = make_settings(steps=30, input_noise=0.001, **changes)
    one, _, curve = train(rows, settings)
    monkeypatch.setattr(train_autoencoder, "RESIDENT_BYTES", 0)
    two, _, other = train(rows, settings)
    assert curve.equals(other) and same(one, two)
    (tmp_path / "14").write_bytes(b"")
    assert "it ends early" in message_of(train, rows, settings)


@pytest.mark.parametrize("arch", ["conv1d", "pca"])
def test_closed_form_from_disk_is_that_from_memory(arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts of 7 rows; a closed form sees three patches at a time."""
    monkeypatch.setattr(matrices, "PART_BYTES", 7 * 4 * 101)
    monkeypatch.setattr(matrices, "GROUP_BYTES", 3 * 4 * 16 * 130)
    w = low_rank(130, 101, rank=6)
    with row_writer(tmp_path / "w", "w", (130, 101)) as write:
        write(w)
    on_disk = RowFile(tmp_path / "w", "w")
    one = untrained(101, arch=arch)
    one.fit_closed_form(w)
    two = untrained(101, arch=arch)  # seeds anew
    two.fit_closed_form(on_disk)
    assert same(one, two)
    torch.testing.assert_close(encode_all(two, on_disk), encode_all(one, w), rtol=1e-4, atol=1e-4)
    assert reconstruction_error(two, on_disk) == pytest.approx(reconstruction_error(one, w), rel=1e-3)


@pytest.mark.parametrize("latent", [4, 24])
def test_pca_error_equals_that_of_sklearn(latent: int) -> None:
    w = random(30, 80) + 3.0
    model, _, curve = train(w, make_settings(arch="pca", latent_channels=1, latent_length=latent))
    exact = w.double().numpy()
    reference = PCA(latent, svd_solver="full").fit(exact)
    expected = ((reference.inverse_transform(reference.transform(exact)) - exact) ** 2).mean()
    assert reconstruction_error(model, w) == pytest.approx(expected, rel=1e-4)
    assert curve["loss"].tolist() == [reconstruction_error(model, w)]
    found = matrices.principal_axes(w - w.mean(0), 40)  # more than the rank
    assert 29 <= len(found) <= 30
    torch.testing.assert_close(found @ found.T, torch.eye(len(found)), rtol=0, atol=1e-4)
    assert set(matrices.evenly_spaced(20_000, 1_000).diff().tolist()) == {20, 21}  # spread over all


def test_normalised_latents_have_mean_0_and_std_1_over_all_tasks_and_the_scale_is_undone(tmp_path: Path) -> None:
    latents = {q: 5 * random(20, 2, 4, seed=i) + i for i, q in enumerate("ab")}
    autoencoder.save_latents(tmp_path, latents)
    found = autoencoder.load_latents(tmp_path, ["a", "b"])
    z = torch.cat(list(found.values()))
    torch.testing.assert_close(z.mean(0), torch.zeros(2, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2, 4), rtol=1e-4, atol=0)
    torch.testing.assert_close(autoencoder.load_scale(tmp_path).undo(found["b"]), latents["b"], rtol=1e-5, atol=1e-5)
    z[:, 1, 2] = 0.75  # a position that never varies becomes 0 and comes back
    scale = Scale.of(z)
    assert torch.equal(scale.apply(z)[:, 1, 2], torch.zeros(40))
    torch.testing.assert_close(scale.undo(scale.apply(z) + 1)[:, 1, 2], torch.full((40,), 0.75))
    assert torch.isfinite(Scale.of(z[:1]).apply(z)).all()  # of a single one
