"""Image files of any kind -> squares of RGB; and the bytes of a PNG."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from condpdiff.common.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
NEUTRAL = "a picture"
"""Caption of a picture that comes without one."""


def read_rgb(opened: Callable[[], Image.Image], place: str) -> np.ndarray:
    """An image of any mode as uint8 [H, W, 3]: the right way up, on white where it is transparent.

    Args:
        opened: opens it.
        place: what to call it in an error.

    Raises:
        UserError: it can't be decoded, or its pixels are no colours.
    """
    try:
        image = ImageOps.exif_transpose(opened())
        if image.mode.startswith("I"):  # 16 bits a pixel, which `convert` would cut off at 255
            return np.repeat((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        if image.mode == "F":
            raise ValueError("its pixels are floating-point numbers; allowed: 8 or 16 bits a channel")
        return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise UserError(f"{place}: not an image; allowed: {', '.join(SUFFIXES)} of 8 or 16 bits") from None
    except Exception as error:  # a damaged file: Pillow's decoders raise dozens of kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{place}: not a readable image ({reason})") from None


def read_picture(picture: Any, size: int) -> np.ndarray:
    """A picture of any size as a condition takes it: its middle square, uint8 [size, size, 3].

    Args:
        picture: a path, a PIL image, or an array uint8 [H, W, 3].

    Raises:
        UserError: it can't be read.
    """
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    place = "picture" if isinstance(picture, Image.Image) else str(picture)
    image = read_rgb(lambda: picture if isinstance(picture, Image.Image) else Image.open(picture), place)
    return square(image, size)


def square(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of an image [H, W, 3], as uint8 [size, size, 3]; a smaller one is enlarged."""
    scale = size / min(image.shape[:2])
    if scale > 1:
        width, height = (max(size, round(length * scale)) for length in image.shape[1::-1])
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(image[top : top + side, left : left + side])
    return np.asarray(middle.resize((size, size), Image.Resampling.LANCZOS))


def encode_png(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] -> the bytes of a PNG file, the same for the same pixels."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def shrink(images: np.ndarray, size: int) -> np.ndarray:
    """Squares uint8 [V, H, H, 3] -> uint8 [V, size, size, 3]."""
    resized = [Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS) for image in images]
    return np.stack([np.asarray(image) for image in resized])
