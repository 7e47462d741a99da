"""Latent diffusion: with a perfect denoiser sampling gives the data; with a trained one, the condition's data."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from condpdiff.common.settings import parse
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.process import LINEAR, Process, guided, heeded, load, sample, save, train
from condpdiff.diffusion.settings import Ldm
from tests.tensors import random

ALPHAS = DDPMScheduler(**LINEAR).alphas_cumprod
PLAIN = Process("sample")


def make_settings(**changes: Any) -> Ldm:
    settings = {"channels": [8, 12, 16], "prediction": "sample", "condition_dropout": 0.1, "ema": 0.99}
    settings |= {"performance": "none", "steps": 20, "batch_size": 8, "lr": 0.003}
    return parse(Ldm, settings | changes, "params.yaml", "ldm")


def oracle(z_0: Tensor, process: Process) -> Any:
    """Predicts just what a perfect network would, knowing z_0."""

    def predict(z_t: Tensor, t: Tensor) -> Tensor:
        alpha = ALPHAS[t][:, None, None]
        a, s = alpha.sqrt(), (1 - alpha).sqrt()
        eps = (z_t - a * z_0) / s
        return {"epsilon": eps, "v_prediction": a * eps - s * z_0, "sample": z_0}[process.prediction]

    return predict


def options(scheduler: str = "ddim", steps: int = 20, process: Process = PLAIN, seed: int = 0) -> dict[str, Any]:
    return {"scheduler": scheduler, "steps": steps, "process": process, "seed": seed}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    ("scheduler", "steps"), [*((s, n) for s in ("ddim", "dpm++") for n in (2, 50)), ("ddpm", 2), ("ddpm", 1000)]
)
def test_perfect_denoiser_gives_the_data(scheduler: str, steps: int, prediction: str) -> None:
    process = Process(prediction)
    z_0 = 3 * random(4, 2, 8)  # beyond 1: x_0 must not be clipped
    found, path = sample(oracle(z_0, process), random(4, 2, 8, seed=1), **options(scheduler, steps, process))
    torch.testing.assert_close(found, z_0, rtol=0, atol=2e-2)
    assert len(path) == steps + 1
    assert torch.equal(path[0], random(4, 2, 8, seed=1))
    assert torch.equal(path[-1], found)


@pytest.mark.parametrize("scheduler", ["ddpm", "ddim", "dpm++"])
def test_sampling_depends_on_noise_and_seed_alone(scheduler: str) -> None:
    seen: list[list[int]] = []

    def halves(z_t: Tensor, t: Tensor) -> Tensor:
        seen.append(t.tolist())
        return 0.5 * z_t

    def run(noise: int, seed: int) -> Tensor:
        return sample(halves, random(3, 2, 8, seed=noise), **options(scheduler, 4, seed=seed))[0]

    one = run(1, 0)
    torch.rand(3)  # the global state must not matter
    assert torch.equal(one, run(1, 0)) and not torch.equal(one, run(2, 0))
    assert torch.equal(one, run(1, 5)) == (scheduler != "ddpm")  # DDPM alone adds noise at each step
    assert all(len(t) == 3 and len(set(t)) == 1 for t in seen)  # one a row
    assert scheduler != "ddim" or [t[0] for t in seen[:4]] == [999, 749, 499, 249]
    none = sample(pytest.fail, random(3, 2, 8), **options(scheduler, process=Process("sample", "none")))
    assert not none[0].any() and not torch.stack(list(none[1])).any()  # without a residual latents are mu


@pytest.mark.parametrize(("guidance", "performance_guidance"), [(0.0, 1.0), (1.0, 1.0), (2.5, 0.0), (2.5, 3.0)])
def test_guidance_goes_from_average_to_asked_and_from_null_to_it(guidance: float, performance_guidance: float) -> None:
    torch.manual_seed(0)
    model = Denoiser(2, 8, (8, 12, 16), 1, 6, performance=True).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # so that conditions make a difference
    z, t, y, p = random(3, 2, 8), torch.full((3,), 400), random(3, 6, seed=2), torch.ones(3)
    average, asked = model(z, t, y), model(z, t, y, p=p)
    null = model(z, t, y, torch.ones(3, dtype=torch.bool))
    assert not torch.allclose(average, asked, atol=1e-3) and not torch.allclose(average, null, atol=1e-3)
    good = average + performance_guidance * (asked - average)
    found = guided(model, y, guidance, p, performance_guidance)(z, t)
    torch.testing.assert_close(found, null + guidance * (good - null))
    torch.testing.assert_close(guided(model, y, guidance)(z, t), null + guidance * (average - null))
    if guidance == performance_guidance == 1:
        assert torch.equal(found, asked)  # to the bit: the conditional model alone


def clusters() -> tuple[dict[str, Tensor], Tensor]:
    """Two tasks whose latents lie round two far points."""
    centres = torch.stack([torch.ones(1, 4), -torch.ones(1, 4)])  # [2, C, L]
    centres[:, :, ::2] *= 0.5
    return {q: centres[i] + 0.05 * random(24, 1, 4, seed=i) for i, q in enumerate("ab")}, centres


@pytest.mark.parametrize(("prediction", "learnable", "mean"), [("epsilon", False, "none"), ("sample", True, "ridge")])
def test_samples_land_in_the_cluster_of_their_condition(prediction: str, learnable: bool, mean: str) -> None:
    z, centres = clusters()
    # three texts a task, of which a row draws one; or the index of a learned vector
    y = {"a": torch.tensor([[0.0]]), "b": torch.tensor([[1.0]])}
    if not learnable:
        y = {q: sign + 0.2 * random(3, 5, seed=i) for i, (q, sign) in enumerate((("a", 1.0), ("b", -1.0)))}
    settings = make_settings(prediction=prediction, mean=mean, steps=250, batch_size=32, ema=0.97, channels=[16] * 3)
    model, curve = train(z, y, None, settings, learnable)
    learned = curve["loss"].iloc[-3:].mean() < 0.6 * curve["loss"].iloc[0]
    assert learned or mean == "ridge"  # round mu(y) there is nothing to learn
    share = heeded(model, Process(prediction), z, y)
    assert share is not None and 0.5 < share < 1.5
    for i, q in enumerate("ab"):
        rows = y[q][torch.arange(8) % len(y[q])]
        r, _ = sample(guided(model, rows, 1.0), random(8, 1, 4, seed=7), **options(process=Process(prediction)))
        found = model.mean.latent(r, rows)
        nearest = torch.cdist(found.flatten(1), centres.flatten(1)).argmin(1)
        assert nearest.tolist() == [i] * 8
        assert float((found - centres[i]).abs().mean()) < 0.4


def test_denoiser_that_ignores_its_condition_is_found_out_and_tasks_in_one_place_are_not_judged() -> None:
    z, _ = clusters()
    model = Denoiser(1, 4, (16, 16, 16), 1, 5).eval()
    alike = {q: random(2, 5) for q in "ab"}
    assert heeded(model, PLAIN, z, alike) == pytest.approx(0, abs=1e-6)
    assert heeded(model, PLAIN, {q: rows - rows.mean(0) for q, rows in z.items()}, alike) is None


def test_training_is_reproducible_gives_the_average_and_can_be_saved(tmp_path: Path) -> None:
    z, _ = clusters()
    y = {"a": torch.tensor([[0.0]]), "b": torch.tensor([[1.0]])}

    def trained(**changes: Any) -> Denoiser:
        return train(z, y, None, make_settings(prediction="v_prediction", **changes), True)[0]

    def same(one: Denoiser, two: Denoiser) -> bool:
        return all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))

    one = trained()
    assert same(one, trained()) and not same(one, trained(seed=1)) and not same(one, trained(ema=0.0))
    process = Process("v_prediction", "none")
    save(tmp_path / "ldm.safetensors", one, process)
    found, again = load(tmp_path / "ldm.safetensors")
    assert again == process
    batch = z["a"][:2], torch.tensor([3, 700]), torch.cat([y["a"], y["b"]])
    with torch.inference_mode():
        assert torch.equal(found(*batch), one(*batch))


def test_samples_follow_the_performance_asked_for() -> None:
    # one task whose checkpoints lie on a line, the better the further to the right
    p = torch.linspace(0, 1, 64)
    z = {"a": (2 * p - 1)[:, None, None] * torch.ones(1, 4) + 0.05 * random(64, 1, 4)}
    y = {"a": torch.ones(1, 5)}
    settings = make_settings(performance="rank", steps=200, batch_size=32, ema=0.95, lr=0.006)
    model, _ = train(z, y, {"a": p.numpy()}, settings, False)
    rows = y["a"].expand(16, -1)

    def ask(value: float | None, scale: float = 1.0) -> Tensor:
        asked = None if value is None else torch.full((16,), value)
        r, _ = sample(guided(model, rows, 1.0, asked, scale), random(16, 1, 4, seed=7), **options())
        return model.mean.latent(r, rows)

    means = [float(ask(value).mean()) for value in (0.0, 0.5, 1.0)]
    assert means[0] < -0.6 and abs(means[1]) < 0.3 and means[2] > 0.6
    assert float(ask(1.0, 2.0).mean()) > means[2]
    assert float(ask(None).mean(1).std()) > 2 * float(ask(1.0).mean(1).std())  # asking for none gives the whole zoo
