"""Latent diffusion: the training loss (Eq. 8), and from noise to latents."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from tqdm import tqdm

from condpdiff.common.files import read_config, read_tensors, write_tensors
from condpdiff.common.hardware import device, rank, share
from condpdiff.common.stage import folder_of
from condpdiff.common.training import adamw, fit
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.settings import Ldm

FILE = "ldm.safetensors"
HEEDS = 0.05  # of the distance between tasks, which a denoiser that heeds its condition brings about

# T = 1000, linear beta from 1e-4 to 2e-2, as in the paper.
LINEAR: dict[str, Any] = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 2e-2, "beta_schedule": "linear"}


@dataclass(frozen=True)
class Process:
    """What a sampler must know of how the denoiser was trained."""

    prediction: str  # epsilon | v_prediction | sample
    residual: str = "diffusion"  # diffusion | none: latents are mu(y)


Predict = Callable[[Tensor, Tensor], Tensor]  # (z_t [B, C, L], t [B]) -> prediction [B, C, L]


def train(
    z: dict[str, Tensor], y: dict[str, Tensor], p: dict[str, np.ndarray] | None, settings: Ldm, learnable: bool
) -> tuple[Denoiser, pd.DataFrame]:
    """Train on all tasks' latents z [N, C, L] and conditions y [V, d_cond], or (`learnable`) task indices [V, 1].

    Every row of a batch draws one of its task's V; p is the performance [N] of each task's checkpoints, None for
    `ldm.performance: none`. Gives the denoiser with its EMA weights, on the CPU, and the curve (step, loss).
    """
    from diffusers.training_utils import EMAModel  # two seconds, which sampling need not wait for

    torch.manual_seed(settings.seed)
    _, C, L = next(iter(z.values())).shape  # noqa: N806
    model = Denoiser(
        C,
        L,
        settings.channels,
        settings.blocks,
        d_cond=settings.channels[0] if learnable else next(iter(y.values())).shape[1],
        tasks=len(z) if learnable else 0,
        performance=settings.performance != "none",
        network=settings.task_loss.steps > 0,
    )
    if settings.mean == "ridge":
        model.mean.fit(z, y, settings.ridge)
    model.to(device())

    class Average(EMAModel):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            super().load_state_dict(state)
            self.to(device())

    ema = Average(model.parameters(), decay=settings.ema, use_ema_warmup=True, power=0.75, foreach=True)
    scheduler = DDPMScheduler(**LINEAR, prediction_type=settings.prediction)

    on = model.device
    latents = torch.cat(list(z.values())).to(on)  # [Q N, C, L]
    performance = None if p is None else torch.from_numpy(np.concatenate([p[task] for task in z])).to(on)  # [Q N]
    task_of = torch.cat([torch.full((len(rows),), q) for q, rows in enumerate(z.values())]).to(on)
    counts = torch.tensor([len(rows) for rows in y.values()], device=on)  # [Q]
    first = counts.cumsum(0) - counts
    conditions = torch.cat(list(y.values())).to(on)
    rows = share(settings.batch_size)

    def loss(network: nn.Module, _: int) -> Tensor:
        picked = torch.randint(len(latents), (rows,), device=on)
        q = task_of[picked]
        drawn = conditions[first[q] + (torch.rand(rows, device=on) * counts[q]).long()]
        z_0 = model.mean.residual(latents[picked], drawn)
        drop = torch.rand(rows, device=on) < settings.condition_dropout
        asked = None
        if performance is not None:
            unasked = torch.rand(rows, device=on) < settings.performance_dropout
            asked = torch.where(unasked, torch.nan, performance[picked])
        t = torch.randint(len(scheduler.alphas_cumprod), (rows,), device=on)  # one a row
        eps = torch.randn_like(z_0)
        z_t = scheduler.add_noise(z_0, eps, t)
        target = {
            "epsilon": lambda: eps,
            "sample": lambda: z_0,
            "v_prediction": lambda: scheduler.get_velocity(z_0, eps, t),
        }[settings.prediction]()
        return (network(z_t, t, drawn, drop, asked) - target).square().mean()

    def after_step(done: int) -> None:
        if done:
            ema.step(model.parameters())

    optimizer = adamw(model.parameters(), settings.lr)
    what: Any = {"steps": settings.steps, "what": "train-ldm", "rate": "ldm.lr"}
    curve = fit(model, loss, optimizer, **what, after_step=after_step, resume=folder_of("train-ldm"), state=[ema])
    ema.copy_to(model.parameters())
    model.cpu().eval()
    heeds = heeded(model, Process(settings.prediction, settings.residual), z, y)
    if rank() == 0 and heeds is not None and heeds < HEEDS:
        says = f"{heeds:.1%} of the distance between tasks; raise ldm.steps or lower ldm.condition_dropout"
        print(f"warning: train-ldm: the denoiser ignores its condition, which brings {says}", flush=True)
    return model, curve


def guided(
    model: Denoiser, y: Tensor, guidance: float, p: Tensor | None = None, performance_guidance: float = 1.0
) -> Predict:
    """Classifier-free guidance, twice: from the average toward the good, then from the null condition toward y's.

    Conditions are y [S, d_cond], performances p [S]; a scale of 1 is the conditional model, and costs no further pass.
    """

    def predict(z_t: Tensor, t: Tensor) -> Tensor:
        asked = model(z_t, t, y, p=p)
        if p is not None and performance_guidance != 1:
            average = model(z_t, t, y)
            asked = average + performance_guidance * (asked - average)
        if guidance == 1:
            return asked
        null = model(z_t, t, y, torch.ones(len(z_t), dtype=torch.bool, device=z_t.device))
        return null + guidance * (asked - null)

    return predict


@torch.inference_mode()
def sample(
    predict: Predict, noise: Tensor, process: Process, *, scheduler: str, steps: int, seed: int, what: str | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Denoise `noise` [S, C, L] to latents [S, C, L], 0 without a residual; with them z_t at every step, noise first.

    `seed` is of the noise that DDPM adds at every step, `what` the name of a progress bar, None for none.
    """
    if process.residual == "none":
        return torch.zeros_like(noise), [torch.zeros_like(noise)]
    options = LINEAR | {"prediction_type": process.prediction}
    sampler: Any
    if scheduler == "ddpm":  # it clips no x_0: normalised latents are not bounded by 1
        sampler = DDPMScheduler(**options, clip_sample=False)
    elif scheduler == "ddim":
        sampler = DDIMScheduler(**options, clip_sample=False, timestep_spacing="trailing")
    else:
        from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler  # half a second

        sampler = DPMSolverMultistepScheduler(**options, timestep_spacing="trailing")
    sampler.set_timesteps(steps, device=noise.device)
    generator = torch.Generator(noise.device).manual_seed(seed)
    extra = {} if scheduler == "dpm++" else {"generator": generator}
    z_t, path = noise, [noise]
    for t in tqdm(sampler.timesteps, desc=what, unit="step", leave=False, mininterval=1, disable=what is None):
        z_t = sampler.step(predict(z_t, t.expand(len(z_t))), t, z_t, **extra).prev_sample
        path.append(z_t)
    return z_t, path


@torch.inference_mode()
def heeded(model: Denoiser, process: Process, z: Mapping[str, Tensor], y: Mapping[str, Tensor]) -> float | None:
    """How far apart other conditions y [V, d_cond] bring samples of one noise, over how far apart tasks' z lie.

    A ratio of variances, 0: not at all; None where the tasks lie in one place, as each does in a frame of its own.
    """
    centres = torch.stack([rows.mean(0) for rows in z.values()])  # [Q, C, L]
    within = torch.stack([rows.var(0, unbiased=False).sum() for rows in z.values()]).mean()
    if (between := centres.var(0, unbiased=False).sum()) < 0.1 * within:
        return None
    first = torch.stack([rows[0] for rows in y.values()])
    noise = torch.randn(centres[:1].shape, generator=torch.Generator().manual_seed(0)).expand_as(centres)
    r, _ = sample(guided(model, first, 1.0), noise, process, scheduler="ddim", steps=10, seed=0)
    return float(model.mean.latent(r, first).var(0, unbiased=False).sum() / between)


def save(path: Path, model: Denoiser, process: Process) -> None:
    """EMA weights with the denoiser's config and its process, in one file; `load` is its inverse."""
    write_tensors(path, model.state_dict(), {**model.config, **asdict(process)})


def load(path: Path) -> tuple[Denoiser, Process]:
    config = read_config(path)
    process = Process(config.pop("prediction"), config.pop("residual"))
    model = Denoiser(**config)
    model.load_state_dict(read_tensors(path))
    return model.eval().requires_grad_(False), process
