"""From a condition to theta: shapes, determinism, and the way back through decoder, scale and frame."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from condpdiff.autoencoder.models import Autoencoder, Scale, build
from condpdiff.common.errors import UserError
from condpdiff.common.settings import parse
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.process import Process, train
from condpdiff.diffusion.settings import Ldm
from condpdiff.generate.generator import Generator, generate
from condpdiff.generate.settings import DOSES, Sample
from condpdiff.zoo.normalized import Frame, Moments, statistics_of
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
    decoder: Autoencoder = build({"arch": "conv1d", "K": chosen.K, "C": 2, "L": 8, "patch": 8, "width": 4, "depth": 1})
    denoiser = Denoiser(2, 8, (8, 12, 16), 1, 6, performance=True).eval().requires_grad_(False)
    scale = Scale(torch.full((2, 8), 0.3), torch.full((2, 8), 2.0))
    return {
        "generator": Generator(denoiser, Process("sample"), decoder.eval().requires_grad_(False), scale),
        "frame": Frame(statistics, theta.double().mean(0).float(), positions),
        "y": torch.randn(4, 6),
    }


def run(parts: dict[str, Any], settings: Sample, seed: int = 0) -> tuple[Tensor, Tensor]:
    found = generate(**parts, settings=settings, random=torch.Generator().manual_seed(seed))
    return found["theta"], found["trajectories"]


def scramble(parts: dict[str, Any]) -> None:
    """Random weights in place of those that start at zero, as a few training steps would give."""
    torch.manual_seed(1)
    for parameter in parts["generator"].model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)


def test_samples_and_trajectories_are_whole_thetas_of_the_latent_unscaled_decoded_and_denormalised(
    parts: dict[str, Any],
) -> None:
    theta, path = run(parts, make_settings())  # predicts z_0 = 0 everywhere
    assert theta.shape == (6, LAYOUT.K)
    assert path.shape == (2, 4, LAYOUT.K)
    torch.testing.assert_close(path[:, -1], theta[:2])
    with torch.inference_mode():
        w = parts["generator"].decoder.decode(parts["generator"].scale.shift[None])
    torch.testing.assert_close(theta, parts["frame"].to_theta(w).expand(6, -1), rtol=1e-4, atol=1e-4)
    outside = torch.ones(LAYOUT.K, dtype=torch.bool)
    outside[parts["frame"].positions] = False
    soup = parts["frame"].soup[outside]  # outside the chosen layers
    assert torch.equal(theta[:, outside], soup.expand(6, -1))
    assert torch.equal(path[..., outside], soup.expand(2, 4, -1))


@pytest.mark.parametrize("scheduler", ["ddpm", "ddim", "dpm++"])
def test_generator_decides_the_samples(parts: dict[str, Any], scheduler: str) -> None:
    scramble(parts)
    settings = make_settings(scheduler=scheduler)
    one, again, other = (run(parts, settings, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert len({tuple(row.tolist()) for row in one}) == 6


def spied(parts: dict[str, Any]) -> list[tuple[Tensor, Tensor | None]]:
    """The conditions and performances that the denoiser is asked with."""
    seen: list[tuple[Tensor, Tensor | None]] = []
    model = parts["generator"].model
    original = model.forward
    model.forward = lambda z_t, t, y, *rest, p=None: seen.append((y, p)) or original(z_t, t, y, *rest, p=p)
    return seen


def test_each_sample_draws_its_condition_and_performance(parts: dict[str, Any]) -> None:
    seen = spied(parts)
    run(parts, make_settings(count=40, performance=[0.5, 0.75]))
    y, p = seen[0]
    assert {tuple(row.tolist()) for row in y} == {tuple(row.tolist()) for row in parts["y"]}
    assert p is not None and 0.5 <= float(p.min()) < 0.55 and 0.7 < float(p.max()) <= 0.75
    assert all(torch.equal(y, other) and torch.equal(p, asked) for other, asked in seen)  # from noise to latent
    with pytest.raises(UserError, match=r"sample.performance: found \[0.9, 0.1\], allowed: \[lowest, highest\]"):
        make_settings(performance=[0.9, 0.1])


@pytest.mark.parametrize(
    ("count", "steps", "kept", "points", "expected"),
    [(1, 1, 5, 10, (1, 2)), (3, 2, 5, 10, (3, 3)), (3, 12, 5, 1, (3, 1)), (6, 12, 0, 4, (0, 4))],
)
def test_few_samples_or_steps_give_as_many_trajectories_and_points_as_there_are(
    parts: dict[str, Any], count: int, steps: int, kept: int, points: int, expected: tuple[int, int]
) -> None:
    settings = make_settings(count=count, steps=steps, trajectories=kept, trajectory_points=points)
    theta, path = run(parts, settings)
    assert len(theta) == count
    assert path.shape == (*expected, LAYOUT.K)


def test_asked_performance_moves_the_samples_and_guidance_moves_them_on(parts: dict[str, Any]) -> None:
    scramble(parts)
    none, worst, best = (run(parts, make_settings(performance=p))[0] for p in (None, 0.0, 1.0))
    assert not torch.allclose(worst, best, atol=1e-4)
    assert not torch.allclose(none, best, atol=1e-4)
    further = run(parts, make_settings(performance=1.0, performance_guidance=2.0))[0]
    unasked = run(parts, make_settings(performance=1.0, performance_guidance=0.0))[0]
    assert not torch.allclose(further, best, atol=1e-4)
    torch.testing.assert_close(unasked, none)


def test_doses_are_samples_at_each_asked_performance(parts: dict[str, Any]) -> None:
    scramble(parts)
    settings = make_settings(performance=1.0, doses=3)
    found = generate(**parts, settings=settings, random=torch.Generator().manual_seed(0))
    assert found["asked"].tolist() == list(DOSES)
    assert found["doses"].shape == (len(DOSES), 3, LAYOUT.K)
    assert not torch.allclose(found["doses"][0].mean(0), found["doses"][-1].mean(0), atol=1e-4)
    without = generate(**parts, settings=make_settings(performance=1.0), random=torch.Generator().manual_seed(0))
    assert torch.equal(found["theta"], without["theta"])  # they do not disturb the samples
    assert without["doses"].shape == (0, 0, LAYOUT.K)


def test_under_shared_statistics_samples_lie_at_their_condition_s_task_and_nonsense_at_none() -> None:
    random, (chosen, positions) = torch.Generator().manual_seed(0), LAYOUT.select_layers(None)
    centres = torch.randn(3, LAYOUT.K, generator=random)
    theta = {q: centres[i] + 0.01 * torch.randn(20, LAYOUT.K, generator=random) for i, q in enumerate("abc")}
    y = {q: torch.eye(6)[i] + 1e-3 * torch.randn(2, 6, generator=random) for i, q in enumerate("abc")}
    statistics = statistics_of("shared", {q: Moments.of([rows]) for q, rows in theta.items()}, chosen)
    frame = Frame(statistics["a"], theta["a"].mean(0), positions)
    decoder = build({"arch": "pca", "K": LAYOUT.K, "C": 2, "L": 4})
    decoder.fit_closed_form(torch.cat([frame.to_w(rows) for rows in theta.values()]))
    latents = {q: decoder.encode(frame.to_w(rows)) for q, rows in theta.items()}
    scale = Scale.of(torch.cat(list(latents.values())))
    keys = {"channels": [8, 8, 8], "prediction": "sample", "condition_dropout": 0.1, "performance": "none"}
    ldm = parse(Ldm, keys | {"ema": 0.9, "steps": 60, "batch_size": 16, "lr": 0.003}, "params.yaml", "ldm")
    model, _ = train({q: scale.apply(z) for q, z in latents.items()}, y, None, ldm, False)
    generator = Generator(model, Process("sample"), decoder, scale)

    def sampled(asked: Tensor) -> Tensor:
        found = generate(generator, frame, asked, make_settings(), torch.Generator().manual_seed(0))
        return torch.cdist(found["theta"], centres) / LAYOUT.K**0.5  # [S, tasks]

    apart = float(torch.pdist(centres).min()) / LAYOUT.K**0.5
    for i, q in enumerate("abc"):
        assert float(sampled(y[q])[:, i].max()) < 0.03 < apart / 30  # of a spread of 0.01
    assert float(sampled(torch.eye(6)[5:]).min()) > 0.3 * apart


def test_performance_asked_of_a_denoiser_without_one_is_an_error(parts: dict[str, Any]) -> None:
    plain = Denoiser(2, 8, (8, 12, 16), 1, 6).eval().requires_grad_(False)
    parts["generator"] = replace(parts["generator"], model=plain)
    with pytest.raises(UserError, match=r"sample.performance: found 1.0, allowed: null"):
        run(parts, make_settings(performance=1.0))
    assert len(run(parts, make_settings(doses=2))[0]) == 6  # and there are no doses to draw
