"""An untrained chain from noise to LoRAs over the layers 0 and 1 of a made-up layout, with random weights."""

from pathlib import Path

import torch
from torch import Tensor

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.latents import SCALE, Scale
from condpdiff.common.files import write_tensors
from condpdiff.common.matrices import Resident
from condpdiff.common.settings import parse
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.conditions import FILE
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.generate.generator import Generator
from condpdiff.generate.settings import Sample
from condpdiff.zoo.normalization import Moments, statistics_of
from condpdiff.zoo.normalized import Frame, save_frame, save_rows
from tests.stand_ins import make_layout

LAYOUT = make_layout()
CHOSEN, POSITIONS = LAYOUT.select_layers((0, 1))
D = 6
SAMPLE = parse(
    Sample,
    {"count": 6, "scheduler": "ddim", "steps": 4, "guidance": 1.0, "performance": [0.5, 1.0]},
    "params.yaml",
    "sample",
)
_DECODER = {"arch": "conv1d", "K": CHOSEN.K, "C": 2, "L": 8, "patch": 8, "width": 4, "depth": 1}


def make_generator() -> Generator:
    torch.manual_seed(0)
    decoder = autoencoder.build(_DECODER).eval().requires_grad_(False)
    model = Denoiser(2, 8, (8, 12, 16), 1, D, performance=True).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # some start at zero, and would ignore the condition
    scale = Scale(torch.zeros(2, 8), torch.ones(2, 8))
    return Generator(model, diffusion.Process("sample"), decoder, scale)


def make_theta(*tasks: str) -> dict[str, Tensor]:
    """Checkpoints [8, K_all] of each task, of another mean and spread each."""
    random = torch.Generator().manual_seed(0)
    return {t: 3 * i + (1 + i) * torch.randn(8, LAYOUT.K, generator=random) for i, t in enumerate(tasks)}


def frames_of(theta: dict[str, Tensor], method: str = "task") -> dict[str, Frame]:
    statistics = statistics_of(method, {t: Moments.of([x[:, POSITIONS]]) for t, x in theta.items()}, CHOSEN)
    return {t: Frame(statistics[t], x.double().mean(0).float(), POSITIONS) for t, x in theta.items()}


def save_chain(data: Path, theta: dict[str, Tensor], y: dict[str, Tensor]) -> Path:
    """The folders that the stages before leave: ldm, autoencoder, latents, normalized, conditions."""
    generator = make_generator()
    for folder in ("ldm", "autoencoder", "latents", "normalized", "conditions"):
        (data / folder).mkdir(parents=True)
    diffusion.save(data / "ldm" / diffusion.FILE, generator.model, generator.process)
    autoencoder.save(data / "autoencoder" / autoencoder.FILE, generator.decoder, _DECODER)
    write_tensors(data / "latents" / SCALE, {"shift": generator.scale.shift, "scale": generator.scale.scale})
    write_tensors(data / "conditions" / FILE, y)
    CHOSEN.save(data / "normalized")
    for task, frame in frames_of(theta).items():
        save_rows(data / "normalized" / task, Resident(theta[task]), frame)
        save_frame(data / "normalized" / task, frame)
    return data


class FakePanel:
    """Scores a LoRA by its first weight."""

    def score(self, theta: Tensor) -> float:
        return float(theta[0])
