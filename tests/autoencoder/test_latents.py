"""data/latents: latents come back at mean 0 and std 1, and the scale undoes itself."""

from pathlib import Path

import torch

from condpdiff.autoencoder.models import Scale, load_latents, load_scale, save_latents


def make_latents() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {q: 5 * torch.randn(20, 2, 4, generator=generator) + i for i, q in enumerate("ab")}


def test_normalised_latents_have_mean_0_and_std_1_over_all_tasks_and_the_scale_is_undone(tmp_path: Path) -> None:
    save_latents(tmp_path, make_latents())
    found = load_latents(tmp_path, ["a", "b"])
    z = torch.cat(list(found.values()))
    torch.testing.assert_close(z.mean(0), torch.zeros(2, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2, 4), rtol=1e-4, atol=0)
    torch.testing.assert_close(load_scale(tmp_path).undo(found["b"]), make_latents()["b"], rtol=1e-5, atol=1e-5)


def test_position_that_never_varies_becomes_0_and_comes_back() -> None:
    z = torch.randn(5, 2, 4)
    z[:, 1, 2] = 0.75
    scale = Scale.of(z)
    assert torch.equal(scale.apply(z)[:, 1, 2], torch.zeros(5))
    torch.testing.assert_close(scale.undo(scale.apply(z) + 1)[:, 1, 2], torch.full((5,), 0.75))
    assert torch.isfinite(Scale.of(z[:1]).apply(z)).all()  # of a single one
