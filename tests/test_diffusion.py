"""Latent diffusion: with a perfect denoiser sampling gives the data; with a trained one, the condition's data."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from condpdiff.denoiser import Denoiser
from condpdiff.diffusion import SCHEDULE, guided, load, sample, save, train
from condpdiff.params.ldm import Ldm
from condpdiff.params.section import parse

ALPHAS = DDPMScheduler(**SCHEDULE).alphas_cumprod
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def make_settings(**changes: Any) -> Ldm:
    settings = {"channels": [8, 12, 16], "prediction": "sample", "condition_dropout": 0.1, "ema": 0.99}
    settings |= {"steps": 20, "batch_size": 8, "lr": 0.003}
    return parse(Ldm, settings | changes, "params.yaml", "ldm")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def oracle(z_0: Tensor, prediction: str) -> Any:
    """Predicts just what a perfect network would, knowing z_0."""

    def predict(z_t: Tensor, t: Tensor) -> Tensor:
        a = ALPHAS[t].sqrt()[:, None, None]
        s = (1 - ALPHAS[t]).sqrt()[:, None, None]
        eps = (z_t - a * z_0) / s
        return {"epsilon": eps, "v_prediction": a * eps - s * z_0, "sample": z_0}[prediction]

    return predict


def options(scheduler: str = "ddim", steps: int = 20, prediction: str = "sample", seed: int = 0) -> dict[str, Any]:
    return {"scheduler": scheduler, "steps": steps, "prediction": prediction, "seed": seed}


# --- sampling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("scheduler", ["ddpm", "ddim", "dpm++"])
@pytest.mark.parametrize("steps", [2, 20, 50])
def test_perfect_denoiser_gives_the_data(scheduler: str, prediction: str, steps: int) -> None:
    z_0 = 3 * random(4, 2, 8)  # beyond 1: x_0 must not be clipped
    found, path = sample(oracle(z_0, prediction), random(4, 2, 8, seed=1), **options(scheduler, steps, prediction))
    torch.testing.assert_close(found, z_0, rtol=0, atol=2e-2)
    assert len(path) == steps + 1
    assert torch.equal(path[0], random(4, 2, 8, seed=1))
    assert torch.equal(path[-1], found)


def test_perfect_denoiser_gives_the_data_in_all_1000_steps() -> None:
    z_0 = 3 * random(2, 1, 4)
    found, path = sample(oracle(z_0, "epsilon"), random(2, 1, 4, seed=1), **options("ddpm", 1000, "epsilon"))
    torch.testing.assert_close(found, z_0, rtol=0, atol=2e-2)
    assert len(path) == 1001


@pytest.mark.parametrize("scheduler", ["ddpm", "ddim", "dpm++"])
def test_sampling_depends_on_noise_and_seed_alone(scheduler: str) -> None:
    def halves(z_t: Tensor, t: Tensor) -> Tensor:
        return 0.5 * z_t

    def run(noise: int, seed: int) -> Tensor:
        torch.manual_seed(torch.seed() % 1000)  # the global state must not matter
        return sample(halves, random(3, 2, 8, seed=noise), **options(scheduler, 10, "sample", seed))[0]

    assert torch.equal(run(1, 0), run(1, 0))
    assert not torch.equal(run(1, 0), run(2, 0))
    assert torch.equal(run(1, 0), run(1, 5)) == (scheduler != "ddpm")  # DDPM alone adds noise at each step


def test_every_row_gets_its_own_timestep_tensor() -> None:
    seen = []

    def watch(z_t: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return torch.zeros_like(z_t)

    sample(watch, random(3, 2, 8), **options("ddim", 4))
    assert [t.tolist() for t in seen] == [[999] * 3, [749] * 3, [499] * 3, [249] * 3]


# --- guidance -----------------------------------------------------------------------------------


@pytest.fixture
def trained() -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(2, 8, (8, 12, 16), 1, 6)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_goes_from_null_through_the_conditional_and_beyond(trained: Denoiser, guidance: float) -> None:
    z, t, y = random(3, 2, 8), torch.full((3,), 400), random(3, 6, seed=2)
    conditional, null = trained(z, t, y), trained(z, t, y, torch.ones(3, dtype=torch.bool))
    assert not torch.allclose(conditional, null, atol=1e-3)
    found = guided(trained, y, guidance)(z, t)
    torch.testing.assert_close(found, null + guidance * (conditional - null))


def test_guidance_of_1_is_the_conditional_model_to_the_bit(trained: Denoiser) -> None:
    z, t, y = random(3, 2, 8), torch.full((3,), 400), random(3, 6, seed=2)
    assert torch.equal(guided(trained, y, 1.0)(z, t), trained(z, t, y))


# --- training -----------------------------------------------------------------------------------


def clusters() -> tuple[dict[str, Tensor], Tensor]:
    """Two tasks whose latents lie round two far points."""
    centres = torch.stack([torch.ones(1, 4), -torch.ones(1, 4)])  # [2, C, L]
    centres[:, :, ::2] *= 0.5
    return {q: centres[i] + 0.05 * random(24, 1, 4, seed=i) for i, q in enumerate("ab")}, centres


@pytest.mark.parametrize(("prediction", "learnable"), [("epsilon", False), ("v_prediction", True), ("sample", False)])
def test_samples_land_in_the_cluster_of_their_condition(prediction: str, learnable: bool) -> None:
    z, centres = clusters()
    # three texts a task, of which a row draws one; or the index of a learned vector
    y = {"a": torch.tensor([[0.0]]), "b": torch.tensor([[1.0]])}
    if not learnable:
        y = {q: sign + 0.2 * random(3, 5, seed=i) for i, (q, sign) in enumerate((("a", 1.0), ("b", -1.0)))}
    settings = make_settings(prediction=prediction, steps=250, batch_size=32, ema=0.97, channels=[16, 16, 16])
    model, curve = train(z, y, settings, learnable)
    assert curve["loss"].iloc[-3:].mean() < 0.6 * curve["loss"].iloc[0]
    for i, q in enumerate("ab"):
        rows = y[q][torch.arange(8) % len(y[q])]
        found, _ = sample(guided(model, rows, 1.0), random(8, 1, 4, seed=7), **options("ddim", 20, prediction))
        nearest = (found[:, None] - centres[None]).flatten(2).norm(dim=2).argmin(1)
        assert nearest.tolist() == [i] * 8
        assert float((found - centres[i]).abs().mean()) < 0.4


def test_training_is_reproducible_by_its_seed() -> None:
    z, _ = clusters()
    y = {q: random(2, 5, seed=i) for i, q in enumerate("ab")}
    states = [train(z, y, make_settings(seed=seed), False)[0].state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_what_comes_back_is_the_average_and_not_the_last_step() -> None:
    z, _ = clusters()
    y = {q: random(2, 5, seed=i) for i, q in enumerate("ab")}
    last, average = (train(z, y, make_settings(ema=ema, steps=40), False)[0] for ema in (0.0, 0.999))
    pairs = list(zip(last.parameters(), average.parameters(), strict=True))
    assert any(not torch.allclose(a, b, atol=1e-4) for a, b in pairs)
    assert all(torch.isfinite(p).all() for p in average.parameters())


def test_one_task_with_one_checkpoint_can_be_trained_on() -> None:
    model, curve = train({"a": random(1, 1, 4)}, {"a": random(1, 5)}, make_settings(), False)
    assert curve["loss"].notna().all()
    assert not model.training


@pytest.mark.parametrize("learnable", [False, True])
def test_saved_denoiser_computes_the_same_and_knows_what_it_predicts(learnable: bool, tmp_path: Path) -> None:
    z, _ = clusters()
    y = {"a": torch.tensor([[0.0]]), "b": torch.tensor([[1.0]])} if learnable else {q: random(1, 5) for q in "ab"}
    model, _ = train(z, y, make_settings(prediction="v_prediction"), learnable)
    save(tmp_path / "ldm.safetensors", model, "v_prediction")
    found, prediction = load(tmp_path / "ldm.safetensors")
    assert prediction == "v_prediction"
    batch = z["a"][:2], torch.tensor([3, 700]), torch.cat([y["a"], y["b"]])
    with torch.inference_mode():
        assert torch.equal(found(*batch), model(*batch))
