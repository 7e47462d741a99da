"""Prepared images, back from disk, and as tensors."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor


def images(rows: pd.DataFrame) -> np.ndarray:
    """The images of a split: uint8 [V, H, W, 3]."""
    return np.stack([np.asarray(Image.open(BytesIO(png))) for png in rows["image"]])


def save_png(path: Path, pixels: np.ndarray, **texts: object) -> None:
    """Write an image [H, W, 3] uint8 with what it was made from inside: its prompt and, where it has one, its seed."""
    inside = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        inside.add_text(key, str(text))
    Image.fromarray(pixels).save(path, pnginfo=inside)


def to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 [V, H, W, 3] -> float32 [V, 3, H, W] in [-1, 1], as diffusers' autoencoders take them."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(pixels: Tensor) -> np.ndarray:
    """float [V, 3, H, W] in [-1, 1] -> uint8 [V, H, W, 3]; what lies beyond is cut."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().contiguous().numpy()
