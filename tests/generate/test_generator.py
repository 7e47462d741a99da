"""From a condition to theta: shapes, determinism, and the way back through decoder, scale and frame."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from condpdiff.autoencoder.models import Scale, build
from condpdiff.common.settings import parse
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.process import Process
from condpdiff.generate.generator import Generator, generate
from condpdiff.generate.settings import DOSES, Sample
from condpdiff.zoo.normalized import Frame, Moments, statistics_of
from tests.messages import message_of
from tests.stand_ins import make_layout

LAYOUT = make_layout()


def make_settings(**changes: Any) -> Sample:
    settings = {"count": 6, "scheduler": "ddim", "steps": 12, "guidance": 1.0, "performance": None, "trajectories": 2}
    return parse(Sample, settings | {"trajectory_points": 4} | changes, "params.yaml", "sample")


@pytest.fixture
def parts() -> dict[str, Any]:
    """An untrained chain over the layers 0 and 1; the denoiser's prediction is 0."""
    torch.manual_seed(0)
    theta = torch.randn(5, LAYOUT.K)
    chosen, positions = LAYOUT.select_layers((0, 1))
    statistics = statistics_of("task", {"a": Moments.of([theta[:, positions]])}, chosen)["a"]
    decoder = build({"arch": "conv1d", "K": chosen.K, "C": 2, "L": 8, "patch": 8, "width": 4, "depth": 1})
    denoiser = Denoiser(2, 8, (8, 12, 16), 1, 6, performance=True).eval().requires_grad_(False)
    scale = Scale(torch.full((2, 8), 0.3), torch.full((2, 8), 2.0))
    return {
        "generator": Generator(denoiser, Process("sample"), decoder.eval().requires_grad_(False), scale),
        "frame": Frame(statistics, theta.double().mean(0).float(), positions),
        "y": torch.randn(4, 6),
    }


@pytest.fixture
def scrambled(parts: dict[str, Any]) -> dict[str, Any]:
    """Random weights in place of those that start at zero, as a few training steps would give."""
    torch.manual_seed(1)
    for parameter in parts["generator"].model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return parts


def run(parts: dict[str, Any], seed: int = 0, **settings: Any) -> dict[str, Tensor]:
    return generate(**parts, settings=make_settings(**settings), random=torch.Generator().manual_seed(seed))


def test_samples_and_trajectories_are_the_latent_unscaled_decoded_and_denormalised(parts: dict[str, Any]) -> None:
    made, frame = run(parts), parts["frame"]  # predicts z_0 = 0 everywhere
    theta, path = made["theta"], made["trajectories"]
    assert path.shape == (2, 4, LAYOUT.K)
    torch.testing.assert_close(path[:, -1], theta[:2])
    with torch.inference_mode():
        w = parts["generator"].decoder.decode(parts["generator"].scale.shift[None])
    torch.testing.assert_close(theta, frame.to_theta(w).expand(6, -1), rtol=1e-4, atol=1e-4)
    outside = torch.ones(LAYOUT.K, dtype=torch.bool)
    outside[frame.positions] = False
    soup = frame.soup[outside]  # outside the chosen layers
    assert torch.equal(theta[:, outside], soup.expand(6, -1))
    assert torch.equal(path[..., outside], soup.expand(2, 4, -1))


def test_each_sample_draws_its_condition_and_performance(parts: dict[str, Any]) -> None:
    seen: list[tuple[Tensor, Tensor]] = []  # what the denoiser is asked with
    model = parts["generator"].model
    original = model.forward
    model.forward = lambda z_t, t, y, *rest, p=None: seen.append((y, p)) or original(z_t, t, y, *rest, p=p)
    run(parts, count=40, performance=[0.5, 0.75])
    y, p = seen[0]
    assert {tuple(row.tolist()) for row in y} == {tuple(row.tolist()) for row in parts["y"]}
    assert 0.5 <= float(p.min()) < 0.55 and 0.7 < float(p.max()) <= 0.75
    assert all(torch.equal(y, other) and torch.equal(p, asked) for other, asked in seen)  # from noise to latent
    says = message_of(make_settings, performance=[0.9, 0.1])
    assert says.endswith("sample.performance: found [0.9, 0.1], allowed: [lowest, highest] with lowest <= highest")


def test_ddpm_draws_its_steps_noise_for_each_seed(scrambled: dict[str, Any]) -> None:
    one, again, other = (run(scrambled, seed, scheduler="ddpm", steps=50)["theta"] for seed in (0, 0, 1))
    apart = torch.stack([(each - each.mean(0)).flatten() for each in (one, other)])
    assert torch.equal(one, again) and torch.corrcoef(apart)[0, 1] < 0.5


def test_few_samples_or_steps_give_as_many_trajectories_and_points_as_there_are(parts: dict[str, Any]) -> None:
    made = run(parts, count=1, steps=1, trajectories=5, trajectory_points=10)
    assert len(made["theta"]) == 1 and made["trajectories"].shape == (1, 2, LAYOUT.K)
    assert run(parts, trajectories=0)["trajectories"].shape == (0, 4, LAYOUT.K)


def test_asked_performance_moves_the_samples_guidance_on_and_doses_are_of_each(scrambled: dict[str, Any]) -> None:
    none, worst, best = (run(scrambled, performance=p)["theta"] for p in (None, 0.0, 1.0))
    unasked, further = (run(scrambled, performance=1.0, performance_guidance=g)["theta"] for g in (0.0, 2.0))
    assert not any(torch.allclose(other, best, atol=1e-4) for other in (none, worst, further))
    torch.testing.assert_close(unasked, none)
    made = run(scrambled, performance=1.0, doses=3)
    assert made["asked"].tolist() == list(DOSES) and made["doses"].shape == (len(DOSES), 3, LAYOUT.K)
    assert not torch.allclose(made["doses"][0].mean(0), made["doses"][-1].mean(0), atol=1e-4)
    assert torch.equal(made["theta"], best) and len(best.unique(dim=0)) == 6  # they do not disturb the samples
    assert not torch.equal(run(scrambled, 1, performance=1.0)["theta"], best)  # of another seed


def test_performance_asked_of_a_denoiser_without_one_is_an_error(parts: dict[str, Any]) -> None:
    plain = Denoiser(2, 8, (8, 12, 16), 1, 6).eval().requires_grad_(False)
    parts["generator"] = replace(parts["generator"], model=plain)
    assert "sample.performance: found 1.0, allowed: null" in message_of(run, parts, performance=1.0)
    assert run(parts, doses=2)["doses"].shape == (0, 2, LAYOUT.K)  # and there are no doses to draw
