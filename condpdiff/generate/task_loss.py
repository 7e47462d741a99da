"""Train the generator on through the base model: a condition -> noise -> z_0 -> theta -> the base model's own loss.

Reconstruction teaches the zoo's tasks; what lies between them it can't. A task that is drawn afresh costs its rows and
no fine-tuning, so the map from conditions to weights is learned on as many tasks as there are steps. Gradients go
through the decoder and the last sampling step, as in DRaFT-1 (arXiv 2309.17400, Sec. 4.2).
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.latents import Scale, load_scale, save_scale
from condpdiff.autoencoder.models import PcaAutoencoder
from condpdiff.common.hardware import device
from condpdiff.common.task import members
from condpdiff.common.training import fit
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.process import Process, sample
from condpdiff.diffusion.settings import Ldm
from condpdiff.zoo.normalized import Frame, load_frame

SPARE = 0.05
"""Length of axes that the zoo does not have, in mean lengths of those that it has: the task loss may use them."""
Draw = Callable[[int], tuple[Tensor, Callable[[Tensor], Tensor]]]
"""A step's number -> conditions y [S, d_cond], and theta [S, K] -> the tasks' losses [S]."""


class Through(nn.Module):
    """The generator as one differentiable map from conditions to weights."""

    def __init__(self, model: Denoiser, process: Process, decoder: PcaAutoencoder, frame: Frame, steps: int) -> None:
        super().__init__()
        self.model, self.decoder = model, decoder
        self.process, self.frame, self.steps = process, frame, steps

    def forward(self, y: Tensor) -> Tensor:
        """Conditions [S, d_cond] -> theta [S, K], each from a noise of its own."""
        C, L = self.model.config["C"], self.model.config["L"]  # noqa: N806
        r = torch.zeros(len(y), C, L, device=y.device)
        if self.process.residual == "diffusion":
            r = self._residual(y, torch.randn_like(r))
        w = self.decoder.decode(self.model.mean.latent(r, y))
        return w * self.frame.statistics.std.to(w) + self.frame.statistics.mean.to(w)

    def _residual(self, y: Tensor, noise: Tensor) -> Tensor:
        """The sampler up to its last step without gradients, and that one with them: what is predicted there is r."""
        last: list[Tensor] = []

        def predict(z_t: Tensor, t: Tensor) -> Tensor:
            last[:] = [z_t, t]
            return self.model(z_t, t, y)

        sample(predict, noise, self.process, scheduler="ddim", steps=self.steps, seed=0)
        z_t, t = (each.clone() for each in last)  # they were made in inference mode
        return self.model(z_t, t, y)


def unfolded(decoder: PcaAutoencoder, scale: Scale) -> tuple[PcaAutoencoder, Scale]:
    """The same decoder of normalised latents, whose axes have their length inside; spare axes are drawn."""
    found = copy.deepcopy(decoder)
    lengths = torch.linalg.vector_norm(decoder.axes, dim=1)  # 1, or 0 of an axis that the zoo does not have
    scaled = decoder.axes * scale.scale.flatten()[:, None]
    used = lengths > 0.5
    typical = torch.linalg.vector_norm(scaled[used], dim=1).mean()
    drawn = nn.functional.normalize(torch.randn(scaled.shape), dim=1) * SPARE * typical
    with torch.no_grad():
        found.axes.copy_(torch.where(used[:, None], scaled, drawn))
        found.mean.copy_(decoder.decode(scale.shift[None])[0])
    return found, Scale(torch.zeros_like(scale.shift), torch.ones_like(scale.scale))


@dataclass(frozen=True)
class TrainedOn:
    """The rest of a generator whose denoiser the task loss trained on."""

    decoder: PcaAutoencoder
    scale: Scale
    curve: pd.DataFrame
    """Columns step, loss."""

    def save(self, folder: Path) -> None:
        """Beside the denoiser: what `Generator.load` takes in place of the autoencoder's and the latents' own."""
        d = self.decoder
        autoencoder.save(folder / autoencoder.FILE, d, {"arch": "pca", "K": d.K, "C": d.C, "L": d.L})
        save_scale(folder, self.scale)
        self.curve.to_csv(folder / "task_loss.csv", index=False)


def through_base(model: Denoiser, process: Process, data: Path, draw: Draw, settings: Ldm) -> TrainedOn:
    """Train the denoiser on by the task loss, in place, with a decoder of its own; both end on the CPU.

    Args:
        data: where the stages before wrote; the autoencoder is a `PcaAutoencoder`, and all tasks have one frame.
        draw: the tasks of a step.
    """
    decoder = autoencoder.load(data / "autoencoder" / autoencoder.FILE)
    assert isinstance(decoder, PcaAutoencoder)
    torch.manual_seed(settings.seed)
    decoder, scale = unfolded(decoder, load_scale(data / "latents"))
    frame = load_frame(data / "normalized", members("train")[0])
    through = Through(model, process, decoder, frame, settings.task_loss.sampling_steps).to(device())
    through.requires_grad_(True)
    model.mean.spread.requires_grad_(False)
    # Adam's steps are as large for every coordinate of w; the frame's deviations stand between w and theta.
    rate = settings.task_loss.decoder_lr / float(frame.statistics.std.mean())
    groups = [
        {"params": list(model.parameters()), "lr": settings.task_loss.lr},
        {"params": list(decoder.parameters()), "lr": rate},
    ]

    def loss(network: nn.Module, step: int) -> Tensor:
        y, losses = draw(step)
        return losses(network(y)).mean()

    steps = settings.task_loss.steps
    curve = fit(through, loss, torch.optim.Adam(groups, fused=True), steps=steps, what="task loss")
    through.cpu().eval().requires_grad_(False)
    return TrainedOn(decoder, scale, curve)
