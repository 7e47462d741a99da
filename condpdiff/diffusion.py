"""Latent diffusion: the training loss (Eq. 8), and from noise to latents."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm

from condpdiff.denoiser import Denoiser, denoiser_config
from condpdiff.files import read_config, read_tensors, write_tensors
from condpdiff.params.ldm import Ldm
from condpdiff.training import device, fit

FILE = "ldm.safetensors"

# T = 1000, linear beta from 1e-4 to 2e-2, as in the paper.
SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 2e-2, "beta_schedule": "linear"}
_SAMPLERS: dict[str, Callable[..., Any]] = {
    # x_0 is not clipped: normalised latents are not bounded by 1.
    "ddpm": lambda p: DDPMScheduler(**SCHEDULE, prediction_type=p, clip_sample=False),
    "ddim": lambda p: DDIMScheduler(**SCHEDULE, prediction_type=p, clip_sample=False, timestep_spacing="trailing"),
    "dpm++": lambda p: DPMSolverMultistepScheduler(**SCHEDULE, prediction_type=p, timestep_spacing="trailing"),
}

Predict = Callable[[Tensor, Tensor], Tensor]
"""(z_t [B, C, L], t [B]) -> prediction [B, C, L]."""


def train(z: dict[str, Tensor], y: dict[str, Tensor], settings: Ldm, learnable: bool) -> tuple[Denoiser, pd.DataFrame]:
    """Train the denoiser on all tasks together.

    Args:
        z: normalised latents [N, C, L] of each task.
        y: conditions [V, d_cond] of each task; every row of a batch draws one of its task's V.
        learnable: conditions are task indices [V, 1].

    Returns:
        The denoiser with its EMA weights, on the CPU, and the curve (step, loss).
    """
    torch.manual_seed(settings.seed)
    _, C, L = next(iter(z.values())).shape  # noqa: N806
    d_cond = settings.channels[0] if learnable else next(iter(y.values())).shape[1]
    model = Denoiser(C, L, settings.channels, settings.blocks, d_cond, len(z) if learnable else 0).to(device())
    ema = EMAModel(model.parameters(), decay=settings.ema, use_ema_warmup=True, power=0.75)
    scheduler = DDPMScheduler(**SCHEDULE, prediction_type=settings.prediction)

    on = model.device
    latents = torch.cat(list(z.values())).to(on)  # [Q N, C, L]
    task_of = torch.cat([torch.full((len(rows),), q) for q, rows in enumerate(z.values())]).to(on)
    counts = torch.tensor([len(rows) for rows in y.values()], device=on)  # [Q]
    first = counts.cumsum(0) - counts
    conditions = torch.cat(list(y.values())).to(on)

    def loss() -> Tensor:
        picked = torch.randint(len(latents), (settings.batch_size,), device=on)
        z_0, q = latents[picked], task_of[picked]
        variant = (torch.rand(len(q), device=on) * counts[q]).long()
        drop = torch.rand(len(q), device=on) < settings.condition_dropout
        t = torch.randint(scheduler.config["num_train_timesteps"], (len(q),), device=on)  # one a row
        eps = torch.randn_like(z_0)
        z_t = scheduler.add_noise(z_0, eps, t)
        target = {
            "epsilon": lambda: eps,
            "sample": lambda: z_0,
            "v_prediction": lambda: scheduler.get_velocity(z_0, eps, t),
        }[settings.prediction]()
        return F.mse_loss(model(z_t, t, conditions[first[q] + variant], drop), target)

    curve = fit(
        model.parameters(),
        loss,
        steps=settings.steps,
        lr=settings.lr,
        what="train-ldm",
        after_step=lambda: ema.step(model.parameters()),
    )
    ema.copy_to(model.parameters())
    return model.cpu().eval(), curve


def guided(model: Denoiser, y: Tensor, guidance: float) -> Predict:
    """Classifier-free guidance: null + guidance * (conditional - null); 1 is the conditional model alone."""

    def predict(z_t: Tensor, t: Tensor) -> Tensor:
        conditional = model(z_t, t, y)
        if guidance == 1:
            return conditional
        null = model(z_t, t, y, torch.ones(len(z_t), dtype=torch.bool, device=z_t.device))
        return null + guidance * (conditional - null)

    return predict


@torch.inference_mode()
def sample(
    predict: Predict, noise: Tensor, *, scheduler: str, steps: int, prediction: str, seed: int, what: str = "sample"
) -> tuple[Tensor, list[Tensor]]:
    """Denoise `noise` [S, C, L] to normalised latents [S, C, L].

    Args:
        predict: the network, with condition and guidance inside.
        prediction: what it predicts: epsilon, v_prediction or sample.
        seed: of the noise that DDPM adds at every step.

    Returns:
        The latents, and z_t at every step (`steps` + 1 tensors, noise first).
    """
    sampler = _SAMPLERS[scheduler](prediction)
    sampler.set_timesteps(steps, device=noise.device)
    generator = torch.Generator(noise.device).manual_seed(seed)
    extra = {} if scheduler == "dpm++" else {"generator": generator}
    z_t, path = noise, [noise]
    for t in tqdm(sampler.timesteps, desc=what, unit="step", leave=False, mininterval=1):
        prediction_ = predict(z_t, t.expand(len(z_t)))
        z_t = sampler.step(prediction_, t, z_t, **extra).prev_sample
        path.append(z_t)
    return z_t, path


def save(path: Path, model: Denoiser, prediction: str) -> None:
    """EMA weights with the denoiser's config and what it predicts, in one safetensors file."""
    write_tensors(path, model.state_dict(), {**denoiser_config(model), "prediction": prediction})


def load(path: Path) -> tuple[Denoiser, str]:
    """The denoiser of a file that `save` wrote, and what it predicts."""
    config = read_config(path)
    prediction = config.pop("prediction")
    model = Denoiser(**config)
    model.load_state_dict(read_tensors(path))
    return model.eval().requires_grad_(False), prediction
