"""Scores LoRAs of many styles: images of fixed captions, and how far they are from the true ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from condpdiff.common.hardware import device, together
from condpdiff.common.stage import once
from condpdiff.evaluate.settings import Scoring
from condpdiff.style.images import shrink
from condpdiff.style.metrics import Gaussian, features, frechet_distance, gaussian, load_features, load_inception
from condpdiff.style.models import embed_captions, generate, load_transformer, load_vae, pipeline, to_tensor
from condpdiff.zoo.checkpoints import Layout, digest
from condpdiff.zoo.placed import batched_loras

TOGETHER = 8  # LoRAs that generate in one pass
COARSE = 16  # pixels a side at which a stripe that is out of step hardly counts


class Painter:
    """Images of fixed captions and noises from many LoRAs."""

    def __init__(self, base: Path, layout: Layout, scale: float, captions: list[str], scoring: Scoring) -> None:
        """Args: scale: alpha / r."""
        self.layout, self.scale, self.scoring = layout, scale, scoring
        self.transformer, vae = load_transformer(base).to(device()), load_vae(base).to(device())
        if device() != "cpu":
            vae.enable_slicing()  # an image of 512 x 512 takes about a gigabyte to decode
        self.pipe = pipeline(base, self.transformer, vae)
        embedded, mask = embed_captions(base, ["", *captions])
        self.empty = embedded[:1].to(device()), mask[:1].to(device())
        self.embedded, self.mask = embedded[1:].to(device()), mask[1:].to(device())

    def __call__(self, theta: Tensor) -> np.ndarray:
        """theta [S, K] -> uint8 [S, U, H, W, 3], caption u from the noise of seed u whatever the LoRA."""
        made = once(f"images {digest(theta)}", lambda: {"images": torch.from_numpy(self._painted(theta))})
        return made["images"].numpy()

    @torch.inference_mode()
    def _painted(self, theta: Tensor) -> np.ndarray:
        found, u, guidance = [], len(self.embedded), self.scoring.image_guidance
        for some in theta.split(together(TOGETHER)):
            count = len(some)
            embedded, mask = self.embedded.repeat(count, 1, 1), self.mask.repeat(count, 1)
            loras = some.repeat(2 if guidance > 1 else 1, 1)  # guided, the empty caption's rows come before all others
            bf16 = torch.autocast("cuda", torch.bfloat16, enabled=device() != "cpu")
            with batched_loras(self.transformer, self.layout, self.scale, loras.to(device())), bf16:
                seeds, steps = list(range(u)) * count, self.scoring.image_steps
                made = generate(self.pipe, embedded, mask, seeds, steps, guidance, self.empty)
            found.append(made.reshape(count, u, *made.shape[1:]))
        return np.concatenate(found)


class Judge:
    """Distances of images to those of some styles; the lower, the nearer."""

    def __init__(self, base: Path, scored: list[int], aligned: bool, metrics: Sequence[str]) -> None:
        """Args:
        scored: positions of the captions on which pictures are compared: the condition told of the others.
        aligned: a style's images are of the captions that a LoRA is asked for, in their order.
        metrics: Fréchet distances, of style.task.Task.
        """
        self.network = load_features(base)
        self.networks: dict[str, nn.Module] = {"fd_lite0": self.network}
        if "fid" in metrics:
            self.networks["fid"] = load_inception(base)
        self.scored, self.aligned = scored, aligned

    def turn_to(self, true: list[np.ndarray]) -> None:
        """Judge by these styles' images from now on: of each uint8 [n, H, W, 3]."""
        self.true = true
        self.gaussians = [self._gaussians(images) for images in true]
        self.units = [self._unit(images[self.scored]) for images in true] if self.aligned else []

    def distances(self, made: np.ndarray, style: int) -> dict[str, float]:
        """Of images uint8 [U, H, W, 3] to a style's.

        rmse, rmse_16   root mean squared difference of pixels, 0 to 255, at full size and at COARSE pixels a side
        lpips_lite0     squared distance of unit features after each stage of EfficientNet-Lite0, as LPIPS takes it
                        (arXiv 1801.03924, Eq. 1, without learned weights)
        fd_lite0, fid   Fréchet distances on pooled features, over all captions: all that is known of folders
        """
        found = {}
        if self.aligned:
            one, other = made[self.scored], self.true[style][self.scored]
            found["rmse"] = _rmse(one, other)
            found["rmse_16"] = _rmse(shrink(one, COARSE), shrink(other, COARSE))
            found["lpips_lite0"] = float((self._unit(one) - self.units[style]).square().sum(1).mean())
        own = self._gaussians(made)
        return found | {k: frechet_distance(own[k], its) for k, its in self.gaussians[style].items()}

    def _gaussians(self, images: np.ndarray) -> dict[str, Gaussian]:
        return {k: gaussian(features(network, images), "style images") for k, network in self.networks.items()}

    @torch.inference_mode()
    def _unit(self, images: np.ndarray) -> Tensor:
        """[V, D]: features of each stage, of unit length at every place, divided by the root of the places' number."""
        x, found = self.network.norm(self.network.stem(to_tensor(images).to(device()))), []
        for stage in self.network.blocks:
            x = stage(x)
            unit = nn.functional.normalize(x, dim=1)
            found.append(unit.flatten(1) / (unit.shape[2] * unit.shape[3]) ** 0.5)
        return torch.cat(found, dim=1) / len(found) ** 0.5


def confusion(made: np.ndarray, true: np.ndarray) -> np.ndarray:
    """RMSE [S, S] of a LoRA's images [S, V, H, W, 3], one LoRA a row, to every style's true ones [S, V, H, W, 3]."""
    return np.array([[_rmse(images, each) for each in true] for images in made])


def _rmse(one: np.ndarray, other: np.ndarray) -> float:
    """Mean over images of each one's root mean squared difference."""
    off = one.astype(np.float32) - other.astype(np.float32)
    return float(np.sqrt((off**2).mean((1, 2, 3))).mean())
