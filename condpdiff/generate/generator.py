"""From a condition to LoRA weights: noise -> z -> w -> theta."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.latents import Scale, load_scale
from condpdiff.autoencoder.models import Autoencoder, decode_all
from condpdiff.common.errors import UserError
from condpdiff.common.hardware import device
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.process import Process, guided, sample
from condpdiff.generate.settings import DOSES, Sample
from condpdiff.zoo.normalized import Frame

Asked = float | tuple[float, float] | None
"""A performance in 0..1, a range of which each sample draws its own, or none."""


@dataclass(frozen=True)
class Generator:
    """The trained parts that turn a condition into LoRA weights; they do not depend on the task."""

    model: Denoiser
    process: Process
    decoder: Autoencoder
    scale: Scale

    @staticmethod
    def load(data: Path) -> "Generator":
        """What train-ldm, train-ae and encode-latents left in the folder `data`, the denoiser on the device.

        Raises:
            UserError: a file can't be read.
        """
        model, process = diffusion.load(data / "ldm" / diffusion.FILE)
        model.to(device())
        # The task loss trains the decoder on, and its axes then have the latents' scale inside.
        own = data / "ldm" if (data / "ldm" / autoencoder.FILE).is_file() else None
        decoder = autoencoder.load((own or data / "autoencoder") / autoencoder.FILE)
        return Generator(model, process, decoder, load_scale(own or data / "latents"))

    def latents(
        self, y: Tensor, p: Asked, count: int, settings: Sample, random: torch.Generator, what: str | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Sample `count` latents for one task at one performance.

        Args:
            y: conditions [V, d_cond] of the task; each sample draws one of them.
            p: performance asked for.
            random: of the noise and of those draws (CPU, so that all devices start from one noise).

        Returns:
            Normalised latents [count, C, L] and z_t at every step, noise first, on the CPU.
        """
        on = self.model.device
        noise = torch.randn(count, self.model.config["C"], self.model.config["L"], generator=random)
        picked = torch.randint(len(y), (count,), generator=random)
        asked = None
        if p is not None:
            low, high = p if isinstance(p, tuple) else (p, p)
            asked = (low + (high - low) * torch.rand(count, generator=random)).to(on)  # [count]
        z, path = sample(
            guided(self.model, y[picked].to(on), settings.guidance, asked, settings.performance_guidance),
            noise.to(on),
            self.process,
            scheduler=settings.scheduler,
            steps=settings.steps,
            seed=settings.seed,
            what=what,
        )
        mean, drawn = self.model.mean, y[picked].to(on)
        return mean.latent(z, drawn).cpu(), [mean.latent(z_t, drawn).cpu() for z_t in path]

    @torch.no_grad()
    def without_noise(self, y: Tensor) -> Tensor:
        """w [S, K] of mu(y) for conditions y [S, d_cond]: nothing is sampled."""
        return self.to_w(self.model.mean(y.to(self.model.device)).cpu())

    def to_w(self, z: Tensor) -> Tensor:
        """Normalised latents [S, C, L] -> w [S, K]."""
        return decode_all(self.decoder, self.scale.undo(z))

    def to_theta(self, z: Tensor, frame: Frame) -> Tensor:
        """Normalised latents [S, C, L] -> theta [S, K_all] of the task whose frame it is."""
        return frame.to_theta(self.to_w(z))


@dataclass(frozen=True)
class Draw:
    """Draws `count` LoRAs, from the same noise whatever it is asked for."""

    settings: Sample
    count: int
    seed: int

    def __call__(self, generator: Generator, y: Tensor, what: str | None) -> Tensor:
        """w [count, K] for the conditions y [V, d_cond], of which each sample draws one."""
        random = torch.Generator().manual_seed(self.seed)
        z, _ = generator.latents(y, self.settings.performance, self.count, self.settings, random, what)
        return generator.to_w(z)


def generate(
    generator: Generator, frame: Frame, y: Tensor, settings: Sample, random: torch.Generator, what: str = "sample"
) -> dict[str, Tensor]:
    """Sample S LoRAs for one condition, with what the figures need.

    Raises:
        UserError: a performance is asked of a denoiser that was trained without.

    Returns:
        `theta` [S, K_all]; `trajectories` [trajectories, points, K_all], noise first; `asked` [D], the performances
        of the dose-response curve, and `doses` [D, n, K_all], n samples at each of them.
    """
    p, takes = settings.performance, generator.model.config["performance"]
    if p is not None and not takes:
        raise UserError(f"params.yaml: sample.performance: found {p}, allowed: null with ldm.performance: none")
    z, path = generator.latents(y, p, settings.count, settings, random, what)
    points = torch.linspace(0, len(path) - 1, settings.trajectory_points).round().int().unique().tolist()
    kept = min(settings.trajectories, settings.count)
    no_path = torch.empty(0, len(frame.soup))
    trajectories = [generator.to_theta(path[i][:kept], frame) if kept else no_path for i in points]
    asked = DOSES if settings.doses and takes else ()
    doses = [
        generator.to_theta(generator.latents(y, dose, settings.doses, settings, random, what)[0], frame)
        for dose in asked
    ]
    return {
        "theta": generator.to_theta(z, frame),
        "trajectories": torch.stack(trajectories, dim=1),
        "asked": torch.tensor(asked),
        "doses": torch.stack(doses) if doses else torch.empty(0, settings.doses, len(frame.soup)),
    }
