"""Image files of any kind -> squares of RGB; and the bytes of a PNG."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageChops, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from condpdiff.common.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
NEUTRAL = "a picture"  # caption of a picture that comes without one
SAMPLE_FORMAT = 339  # TIFF's tag that says whether values have a sign


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by name."""
    return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]


def read_rgb(opened: Callable[[], Image.Image], place: str) -> np.ndarray:
    """An image of any mode as sRGB, uint8 [H, W, 3]: the right way up, on white where it is transparent.

    An embedded colour profile is applied. Grey values of more than 8 bits are scaled by the fewest bits of 8, 12, 16
    and 32 that hold all of them. Raises a UserError, which begins with `place`, if it can't be decoded, its pixels are
    no colours, or their profile is not understood.
    """
    try:
        opened_image = opened()
        deep = any(";16" in str(tile.args) for tile in getattr(opened_image, "tile", ()))
        signed = getattr(opened_image, "tag_v2", {}).get(SAMPLE_FORMAT, (1,))[0] == 2
        profile, image = opened_image.info.get("icc_profile"), ImageOps.exif_transpose(opened_image)
        if image.mode == "F":
            raise ValueError("its pixels are floating-point numbers; allowed: 8, 12, 16 or 32 bits a channel")
        if image.mode.startswith("I"):  # which `convert` would cut off at 255
            image = Image.fromarray(_to_8_bits(np.asarray(image), signed))
        clear = None
        if image.has_transparency_data:
            image = image.convert("RGBA")
            clear = ImageChops.invert(image.getchannel("A"))
        if image.mode not in ("L", "RGB", "CMYK", "LAB"):
            image = image.convert("RGB")
        if deep and image.mode == "RGB" and max(high for _, high in image.getextrema()) < 16:  # type: ignore[misc]
            raise ValueError("its channels of 16 bits hold 12 or fewer; allowed: 8 bits, or all of 16")
        image = _to_srgb(image, profile) if profile else image.convert("RGB")
        if clear is not None:
            image.paste("white", None, clear)
        return np.asarray(image)
    except UnidentifiedImageError:
        raise UserError(f"{place}: not an image; allowed: {', '.join(SUFFIXES)} of 8, 12, 16 or 32 bits") from None
    except ImageCms.PyCMSError as error:
        raise UserError(f"{place}: its colour profile is not understood ({error}); allowed: sRGB, or none") from None
    except Exception as error:  # a damaged file: Pillow's decoders raise dozens of kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{place}: not a readable image ({reason})") from None


def _to_8_bits(values: np.ndarray, signed: bool) -> np.ndarray:
    """Grey values of 16 or 32 bits as uint8."""
    if not signed and values.dtype == np.int32:
        values = values.view(np.uint32)  # as Pillow has those of TIFF
    if values.min(initial=0) < 0:
        raise ValueError("its pixels are negative numbers; allowed: from 0 on")
    high = int(values.max(initial=0))
    bits = next(bits for bits in (8, 12, 16, 31 if signed else 32) if high < 2**bits)
    return (values >> (bits - 8)).astype(np.uint8)


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """An image in the colours of an embedded profile, as RGB in sRGB's."""
    source = ImageCms.getOpenProfile(io.BytesIO(profile))
    if source.profile.xcolor_space.strip() == "RGB" and image.mode == "L":
        image = image.convert("RGB")
    if image.mode == "LAB":  # colours by themselves
        return image.convert("RGB")
    found = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert found is not None  # but in place
    return found


def read_picture(picture: Any, size: int) -> np.ndarray:
    """The middle square, uint8 [size, size, 3], of a picture of any size: a path, a PIL image, or an array uint8
    [H, W, 3]; a UserError if it can't be read."""
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    if isinstance(picture, Image.Image):
        return square(read_rgb(lambda: picture, "picture"), size)

    def opened() -> Image.Image:
        if Path(picture).is_fifo():
            raise ValueError("a pipe, which may never end")
        return Image.open(picture)

    return square(read_rgb(opened, str(picture)), size)


def square(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of an image [H, W, 3], as uint8 [size, size, 3]; a smaller one is enlarged."""
    scale = size / min(image.shape[:2])
    if scale > 1:
        width, height = (max(size, round(length * scale)) for length in image.shape[1::-1])
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    return shrink(middle(image)[None], size)[0]


def middle(image: np.ndarray) -> np.ndarray:
    """The largest square of an image [H, W, 3] around its middle."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def encode_png(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] -> the bytes of a PNG file, the same for the same pixels."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def decoded(rows: pd.DataFrame) -> np.ndarray:
    """The images of a prepared split: uint8 [V, H, W, 3]."""
    return np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in rows["image"]])


def save_png(path: Path, pixels: np.ndarray, **texts: object) -> None:
    """Write an image [H, W, 3] uint8 with what it was made from inside: its prompt and, where it has one, its seed."""
    inside = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        inside.add_text(key, str(text))
    Image.fromarray(pixels).save(path, pnginfo=inside)


def shrink(images: np.ndarray, size: int) -> np.ndarray:
    """Squares uint8 [V, H, H, 3] -> uint8 [V, size, size, 3]."""
    resized = (Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS) for image in images)
    return np.stack([np.asarray(image) for image in resized])
