"""data/latents: latents come back at mean 0 and std 1, and the scale undoes itself."""

from pathlib import Path

import torch

from condpdiff.autoencoder.latents import Scale, load_latents, load_scale, save_latents


def make_latents() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {q: 5 * torch.randn(20, 2, 4, generator=generator) + i for i, q in enumerate("ab")}


def test_normalised_latents_have_mean_0_and_std_1_over_all_tasks(tmp_path: Path) -> None:
    save_latents(tmp_path, make_latents())
    z = torch.cat(list(load_latents(tmp_path, ["a", "b"]).values()))
    torch.testing.assert_close(z.mean(0), torch.zeros(2, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2, 4), rtol=1e-4, atol=0)


def test_scale_is_undone(tmp_path: Path) -> None:
    z = make_latents()
    save_latents(tmp_path, z)
    scale = load_scale(tmp_path)
    torch.testing.assert_close(scale.undo(load_latents(tmp_path, ["b"])["b"]), z["b"], rtol=1e-5, atol=1e-5)


def test_position_that_never_varies_becomes_0_and_comes_back() -> None:
    z = torch.randn(5, 2, 4)
    z[:, 1, 2] = 0.75
    scale = Scale.of(z)
    assert torch.equal(scale.apply(z)[:, 1, 2], torch.zeros(5))
    torch.testing.assert_close(scale.undo(scale.apply(z) + 1)[:, 1, 2], torch.full((5,), 0.75))


def test_single_latent_is_finite() -> None:
    scale = Scale.of(torch.randn(1, 2, 4))
    assert torch.isfinite(scale.apply(torch.randn(3, 2, 4))).all()
