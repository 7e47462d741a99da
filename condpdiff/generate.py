"""From a condition to LoRA weights: noise -> z -> w -> theta."""

import torch
from torch import Tensor

from condpdiff.autoencoder import Autoencoder, decode_all
from condpdiff.denoiser import Denoiser
from condpdiff.diffusion import guided, sample
from condpdiff.latents import Scale
from condpdiff.normalized import Frame
from condpdiff.params.sample import Sample
from condpdiff.training import device


def generate(
    model: Denoiser,
    prediction: str,
    decoder: Autoencoder,
    scale: Scale,
    frame: Frame,
    y: Tensor,
    settings: Sample,
    generator: torch.Generator,
    what: str = "sample",
) -> tuple[Tensor, Tensor]:
    """Sample S LoRAs for one condition.

    Args:
        y: conditions [V, d_cond] of the task; each sample draws one of them.
        generator: of the noise and of those draws (CPU, so that all devices start from one noise).

    Returns:
        theta [S, K_all], and the denoising trajectories [trajectories, points, K_all], noise first.
    """
    on = device()
    model = model.to(on)  # type: ignore[arg-type]  # mypy does not bind the method that diffusers wraps
    config = model.config
    noise = torch.randn(settings.count, config["C"], config["L"], generator=generator)  # [S, C, L]
    picked = torch.randint(len(y), (settings.count,), generator=generator)
    z, path = sample(
        guided(model, y[picked].to(on), settings.guidance),
        noise.to(on),
        scheduler=settings.scheduler,
        steps=settings.steps,
        prediction=prediction,
        seed=settings.seed,
        what=what,
    )

    def to_theta(latents: Tensor) -> Tensor:
        return frame.to_theta(decode_all(decoder, scale.undo(latents.cpu())))  # [S, K_all]

    points = torch.linspace(0, len(path) - 1, settings.trajectory_points).round().int().unique().tolist()
    kept = min(settings.trajectories, settings.count)
    trajectories = [to_theta(path[i][:kept]) for i in points] if kept else [torch.empty(0, len(frame.soup))]
    return to_theta(z), torch.stack(trajectories, dim=1)
