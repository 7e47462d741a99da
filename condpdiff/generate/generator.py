"""From a condition to LoRA weights: noise -> z -> w -> theta."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.models import Autoencoder, Scale, decode_all, load_scale
from condpdiff.common.errors import UserError
from condpdiff.common.hardware import device
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.process import Process, guided, sample
from condpdiff.generate.settings import DOSES, Sample
from condpdiff.zoo.normalized import Frame

Asked = float | tuple[float, float] | None  # a performance in 0..1, a range that each sample draws from, or none


@dataclass(frozen=True)
class Generator:
    """The trained parts that turn a condition into LoRA weights; they do not depend on the task."""

    model: Denoiser
    process: Process
    decoder: Autoencoder
    scale: Scale

    @staticmethod
    def load(data: Path) -> "Generator":
        """What train-ldm, train-ae and encode-latents left in `data`, the denoiser on the device."""
        model, process = diffusion.load(data / "ldm" / diffusion.FILE)
        model.to(device())
        # The task loss trains the decoder on, and its axes then have the latents' scale inside.
        own = (data / "ldm" / autoencoder.FILE).is_file()
        decoder = autoencoder.load(data / ("ldm" if own else "autoencoder") / autoencoder.FILE)
        return Generator(model, process, decoder, load_scale(data / ("ldm" if own else "latents")))

    def latents(
        self, y: Tensor, p: Asked, count: int, settings: Sample, random: torch.Generator, what: str | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Normalised latents [count, C, L] of one task at the performance p, and z_t at every step, noise first.

        Each sample draws one of the task's conditions y [V, d_cond]. All but the network's work is on the CPU, so that
        all devices start from one noise.
        """
        on = self.model.device
        noise = torch.randn(count, *self.model.mean.shape, generator=random)
        drawn = y[torch.randint(len(y), (count,), generator=random)].to(on)
        asked = None
        if p is not None:
            low, high = p if isinstance(p, tuple) else (p, p)
            asked = (low + (high - low) * torch.rand(count, generator=random)).to(on)  # [count]
        predict = guided(self.model, drawn, settings.guidance, asked, settings.performance_guidance)
        # DDPM adds noise at every step: of these samples' own, as `noise` is.
        seed = int(torch.randint(2**62, (), generator=random)) if settings.scheduler == "ddpm" else settings.seed
        options = settings.model_dump(include={"scheduler", "steps"})
        z, path = sample(predict, noise.to(on), self.process, **options, seed=seed, what=what)
        z_0, *path = (self.model.mean.latent(r, drawn).cpu() for r in (z, *path))
        return z_0, path

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
    """Sample S LoRAs for one condition: `theta` [S, K_all], and `trajectories` [some, points, K_all], noise first.

    Of the dose-response curve also `asked` [D], performances, and `doses` [D, n, K_all], n samples at each.
    Raises UserError: a performance is asked of a denoiser that was trained without.
    """
    p, takes = settings.performance, generator.model.config["performance"]
    if p is not None and not takes:
        raise UserError(f"params.yaml: sample.performance: found {p}, allowed: null with ldm.performance: none")
    z, path = generator.latents(y, p, settings.count, settings, random, what)
    points = torch.linspace(0, len(path) - 1, settings.trajectory_points).round().int().unique().tolist()
    trajectories = [generator.to_theta(path[i][: settings.trajectories], frame) for i in points]
    asked = DOSES if settings.doses and takes else ()
    doses = torch.empty(len(asked), settings.doses, len(frame.soup))
    for i, dose in enumerate(asked):
        dosed, _ = generator.latents(y, dose, settings.doses, settings, random, what)
        doses[i] = generator.to_theta(dosed, frame)
    return {
        "theta": generator.to_theta(z, frame),
        "trajectories": torch.stack(trajectories, dim=1),
        "asked": torch.tensor(asked),
        "doses": doses,
    }
