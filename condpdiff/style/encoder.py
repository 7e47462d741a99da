"""Frozen image networks of the condition: EfficientNet-Lite0, or the paper's ResNet18, both of ImageNet.

Either's pooled last features tell what is on a picture. A style lives in early layers and in colours, so `lite0_depths`
takes means and deviations of every block of EfficientNet-Lite0, and the colours.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from condpdiff.common.errors import UserError
from condpdiff.common.hardware import device
from condpdiff.common.packages import read_member
from condpdiff.common.pretrained import cannot_load
from condpdiff.diffusion.conditions import Encode, unit_variance
from condpdiff.diffusion.settings import Condition
from condpdiff.style.metrics import LITE0_MEMBER, LITE0_PACKAGE, Lite0, features, lite0_of, lite0_state, read_state

KEY = "params.yaml: condition.model"
TORCHVISION = "IMAGENET1K_V1"
COLOUR, QUANTILES, LUMA = 2.0, 7, (0.299, 0.587, 0.114)


def load_encoder(settings: Condition) -> Encode:
    """The encoder that `condition.encoder` and `condition.model` name: draws uint8 [images, H, W, 3] -> [V, d] float32;
    a UserError if its weights can't be had."""
    network: Any = (_resnet18 if settings.encoder == "resnet18" else _lite0)(settings.model)

    def encode(draws: Sequence[np.ndarray]) -> Tensor:
        if settings.encoder == "lite0_depths":
            return torch.stack([depth_features(network, draw) for draw in draws])
        means = [torch.from_numpy(features(network, draw)).mean(dim=0) for draw in draws]
        return unit_variance(torch.stack(means))

    return encode


def weights(settings: Condition) -> Tensor | float:
    """How much each of an encoder's numbers [d] counts beside the others.

    Of `lite0_depths` each part counts alike, however many channels it has, and colours COLOUR times as much.
    """
    if settings.encoder != "lite0_depths":
        return 1.0
    parts = _parts(Lite0().eval(), np.zeros((1, 32, 32, 3), np.uint8))
    alike = [torch.full((len(part),), len(part) ** -0.5) for part in parts]
    return torch.cat([*alike[:-2], *(COLOUR * part for part in alike[-2:])])


def depth_features(network: nn.Module, images: np.ndarray) -> Tensor:
    """Style pictures uint8 [n, H, W, 3] -> [3,658] float32, not of unit length: of all at their own size."""
    return torch.cat(_parts(network, images)).cpu()


@torch.inference_mode()
def _parts(network: Any, images: np.ndarray) -> list[Tensor]:
    """Mean and deviation of each channel after each of the 16 blocks; QUANTILES of red, green and blue; and the mean
    colours of the pixels from dark to light, equally many in each."""
    pixels = torch.from_numpy(images).to(device()).float() / 127.5 - 1
    colours = pixels.flatten(0, 2)  # [n H W, 3]
    levels = torch.linspace(0.05, 0.95, QUANTILES, device=colours.device)
    by_tone = colours[(colours @ colours.new_tensor(LUMA)).argsort(stable=True)].tensor_split(QUANTILES)
    x, found = network.norm(network.stem(pixels.permute(0, 3, 1, 2))), []
    for block in (block for stage in network.blocks.children() for block in stage.children()):
        x = block(x)
        found += [x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0)]
    return [*found, torch.quantile(colours, levels, dim=0).flatten(), torch.cat([c.mean(0) for c in by_tone])]


def _lite0(model: str) -> Lite0:
    content, where = _local(model, "efficientnet_lite0", f"package:{LITE0_PACKAGE}"), f"{KEY}: {model}"
    if content is None:
        content = read_member(LITE0_PACKAGE, LITE0_MEMBER)
    return lite0_of(lite0_state(content, where), where)


def _resnet18(model: str) -> Callable[[Tensor], Tensor]:
    """Images float32 [V, 3, H, W] in [0, 255] -> [V, 512], behind the preprocessing that the weights are of."""
    from torchvision.models import ResNet18_Weights, resnet18

    content, where = _local(model, "resnet18", f"torchvision:{TORCHVISION}"), f"{KEY}: {model}"
    state = _download(model) if content is None else read_state(content, where)
    network, transform = resnet18(), ResNet18_Weights[TORCHVISION].transforms(antialias=True)
    network.fc = nn.Identity()
    try:
        network.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")})
    except RuntimeError:
        raise UserError(f"{where}: found other weights, allowed: those of ResNet18") from None
    network = network.to(device()).eval()
    return lambda images: network(transform(images / 255))


def _local(model: str, encoder: str, published: str) -> bytes | None:
    """The user's own file of weights, or None for the published ones."""
    if model == published:
        return None
    if not model.startswith("local-file:"):
        raise UserError(f"{KEY}: found {model!r}, allowed for {encoder}: {published} or local-file:PATH")
    try:
        return Path(model.removeprefix("local-file:")).read_bytes()
    except OSError as error:
        raise UserError(f"{KEY}: found {model!r}, allowed: a readable file ({error.strerror})") from None


def _download(model: str) -> dict[str, Tensor]:
    from torchvision.models import ResNet18_Weights

    try:
        return dict(ResNet18_Weights[TORCHVISION].get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash, a RuntimeError
        raise cannot_load(KEY, f"image encoder {model!r}", error, "give it locally as local-file:PATH") from None
