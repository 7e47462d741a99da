"""Train the generator on through the base model: a condition -> noise -> z_0 -> theta -> the base model's own loss.

Reconstruction can't teach what lies between the zoo's tasks; a task drawn afresh costs its rows and no fine-tuning.
Gradients go through the decoder and the last sampling step, as in DRaFT-1 (arXiv 2309.17400, Sec. 4.2).
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.models import SCALE, PcaAutoencoder, Scale, load_scale
from condpdiff.common.files import write_tensors
from condpdiff.common.hardware import device
from condpdiff.common.stage import folder_of
from condpdiff.common.task import members
from condpdiff.common.training import fit
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.process import Process, sample
from condpdiff.diffusion.settings import Ldm
from condpdiff.zoo.many import Loras
from condpdiff.zoo.normalized import Frame, denormalise, load_frame, normalise

TRAINED = 0.05  # of the rate: for the denoiser, which at the rate of the mean's fresh network breaks apart
BETAS, CLIP = (0.9, 0.95), 0.1  # at 0.999 and 1 one bad step throws the weights about for hundreds more
SPARE = 0.05  # mean lengths of the zoo's axes that an axis has which the zoo lacks, for the task loss to use
ONE, ONE_STEPS, ONE_LR = "one_for_all.safetensors", 200, 2e-3  # one LoRA for all tasks; steps and rate of its training


class Draw(Protocol):
    """Draws the tasks of a step: its number -> conditions y [S, d_cond], and theta [S, K] -> the tasks' losses [S]."""

    trained: Tensor  # [K]: 0 where fine-tuning leaves theta as it is, as `ManyFinetuning.trained`

    def __call__(self, step: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]: ...

    def state_dict(self) -> dict[str, Any]: ...  # of a resume point: what the next steps' draws depend on

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Through(nn.Module):
    """The generator as one differentiable map from conditions to weights; its decoder gives theta itself."""

    def __init__(self, model: Denoiser, process: Process, decoder: PcaAutoencoder, steps: int) -> None:
        super().__init__()
        self.model, self.process, self.decoder, self.steps = model, process, decoder, steps

    def forward(self, y: Tensor) -> Tensor:
        """Conditions [S, d_cond] -> theta [S, K], each from a noise of its own."""
        r = torch.zeros(len(y), *self.model.mean.shape, device=y.device)
        if self.process.residual == "diffusion":
            r = self._residual(y, torch.randn_like(r))
        return self.decoder.decode(self.model.mean.latent(r, y))

    def _residual(self, y: Tensor, noise: Tensor) -> Tensor:
        """The sampler up to its last step without gradients, and that one with them: what is predicted there is r."""
        last: list[Tensor] = []

        def predict(z_t: Tensor, t: Tensor) -> Tensor:
            last[:] = [z_t, t]
            return self.model(z_t, t, y)

        sample(predict, noise, self.process, scheduler="ddim", steps=self.steps, seed=0)
        z_t, t = (each.clone() for each in last)  # they were made in inference mode
        return self.model(z_t, t, y)


@torch.no_grad()
def unfolded(decoder: PcaAutoencoder, scale: Scale, frame: Frame) -> PcaAutoencoder:
    """The decoder from normalised latents to theta itself, for which one rate is right; `folded` is its inverse.

    Spare axes are drawn.
    """
    found = copy.deepcopy(decoder)
    lengths = torch.linalg.vector_norm(decoder.axes, dim=1)  # 1, or 0 of an axis that the zoo does not have
    scaled = decoder.axes * scale.scale.flatten()[:, None] * frame.statistics.std
    used = lengths > 0.5
    typical = torch.linalg.vector_norm(scaled[used], dim=1).mean()
    drawn = nn.functional.normalize(torch.randn(scaled.shape), dim=1) * SPARE * typical
    found.axes.copy_(torch.where(used[:, None], scaled, drawn))
    found.mean.copy_(denormalise(decoder.decode(scale.shift[None]), frame.statistics)[0])
    return found


@torch.no_grad()
def folded(decoder: PcaAutoencoder, frame: Frame) -> tuple[PcaAutoencoder, Scale]:
    """A decoder to theta as one to w, and the scale of its latents, which are normalised already."""
    found = copy.deepcopy(decoder)
    found.axes.copy_(decoder.axes / frame.statistics.std)
    found.mean.copy_(normalise(decoder.mean[None], frame.statistics)[0])
    return found, Scale(torch.zeros(decoder.C, decoder.L), torch.ones(decoder.C, decoder.L))


@dataclass(frozen=True)
class TrainedOn:
    """What lies beside a denoiser that the task loss trained on."""

    one: Tensor  # [K], of `unconditional`
    trained: tuple[PcaAutoencoder, Scale, pd.DataFrame] | None = None  # what `Generator.load` takes, and the curve

    def save(self, folder: Path) -> None:
        write_tensors(folder / ONE, {"theta": self.one})
        if self.trained is not None:
            decoder, scale, curve = self.trained
            config = {"arch": "pca", "K": decoder.K, "C": decoder.C, "L": decoder.L}
            autoencoder.save(folder / autoencoder.FILE, decoder, config)
            write_tensors(folder / SCALE, vars(scale))
            curve.to_csv(folder / "task_loss.csv", index=False)


def through_base(model: Denoiser, process: Process, data: Path, draw: Draw, settings: Ldm) -> TrainedOn:
    """Train the denoiser on by the task loss, in place, with a decoder of its own; both end on the CPU.

    In `data`, where the stages before wrote, the autoencoder is a `PcaAutoencoder`, and all tasks have one frame.
    """
    torch.manual_seed(settings.seed)
    frame, task_loss = load_frame(data / "normalized", members("train")[0]), settings.task_loss
    one = unconditional(draw, frame.statistics.mean)
    if not task_loss.steps:
        return TrainedOn(one)
    decoder = autoencoder.load(data / "autoencoder" / autoencoder.FILE)
    assert isinstance(decoder, PcaAutoencoder)
    decoder = unfolded(decoder, load_scale(data / "latents"), frame)
    decoder.axes.data *= draw.trained  # the spare ones
    if task_loss.origin == "one_for_all":
        decoder.mean.data.copy_(one)
    part = draw.trained.to(device())
    through = Through(model, process, decoder, task_loss.sampling_steps).to(device())
    through.requires_grad_(True)
    for weights in decoder.parameters() if draw.trained.min() == 0 else ():  # what fine-tuning leaves alone stays so
        weights.register_hook(lambda gradient: gradient * part)
    model.mean.spread.requires_grad_(False)
    trained = [p for name, p in model.named_parameters() if not name.startswith("mean.")]  # these are near already
    groups = [
        {"params": list(model.mean.parameters()), "lr": task_loss.lr},
        {"params": trained, "lr": task_loss.lr * TRAINED},
        {"params": list(decoder.parameters()), "lr": task_loss.decoder_lr},
    ]

    def loss(network: nn.Module, step: int) -> Tensor:
        y, losses = draw(step)
        return losses(network(nn.functional.dropout(y, task_loss.dropout))).mean()

    optimizer = torch.optim.Adam(groups, betas=BETAS, fused=True)
    about: Any = {"what": "task loss", "rate": "ldm.task_loss.lr", "resume": folder_of("task loss"), "state": [draw]}
    curve = fit(through, loss, optimizer, steps=task_loss.steps, clip=CLIP, **about)
    through.cpu().eval().requires_grad_(False)
    return TrainedOn(one, (*folded(decoder, frame), curve))


def unconditional(draw: Draw, start: Tensor) -> Tensor:
    """One LoRA [K] for every task, from `start` [K], by the same loss on such draws: what a condition has to beat."""
    loras = Loras(start[None], draw.trained).to(device())

    def loss(network: nn.Module, step: int) -> Tensor:
        y, losses = draw(step)
        return network(lambda theta, _: losses(theta.expand(len(y), -1)) / len(y), step)

    optimizer = torch.optim.Adam(loras.parameters(), lr=ONE_LR, fused=True)
    fit(loras, loss, optimizer, steps=ONE_STEPS, what="one for all", resume=folder_of("one for all"), state=[draw])
    return loras.theta.detach().cpu()[0]
