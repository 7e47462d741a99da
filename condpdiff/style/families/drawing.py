"""Families of rendered styles: each stands for as many styles as one asks for, drawn with continuous parameters.

grading   colour gradings, pixel by pixel
print     one ink on paper: wash, cut, outline, relief, tiles
strokes   hatching, halftone dots, charcoal, chalk
image     the style of an image that is drawn too, by the network that takes any style
fixed     the 26 styles of a network's own: the family has no more

A style's parameters decide what it does to a picture. The networks alone render a mosaic of pictures at once, and take
means over the whole of it: with them, what becomes of a picture depends a little on the others it is given with.
"""

import colorsys
import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from condpdiff.common.packages import read_member
from condpdiff.style import rendering
from condpdiff.style.photographs import FRAMINGS, cut, photographs
from condpdiff.style.task import FIXED_STYLES

RENDERED = 128
"""Pixels a side of the square pictures that styles are made for; whoever asks brings them to the size of his own."""
SCORED, CONDITION = (0, 2, 4, 6, 8), (1, 3, 5, 7, 9)
"""Positions of the photographs that a style's score is taken on, and of those that tell of the style."""
CROPS, CROP_SIDES = 2, (0.5, 0.9)
"""Crops of each of the condition's photographs, and their sides, in sides of the photograph's shorter one."""

PICTURES = ("brick.png", "coins.png", "color.png", "grass.png", "gravel.png", "page.png", "text.png", "moon.png")
"""Images of scikit-image's wheel that styles are taken of, beside the photographs of `photographs`."""
PATTERNS = {"waves": (0.1, 0.3), "dots": (0.1, 0.3), "strands": (0.2, 0.5), "blobs": (0.3, 0.6)}
"""What is laid over them, and how much of a style's image it may be."""

Style = dict[str, Any]
"""One style of a family, as JSON can hold it: the family's name as `renderer`, and all that decides the style."""


def draw(renderer: str, number: int, seed: int) -> Style:
    """Style `number` of a family of RENDERERS: the same for the same arguments, whatever was drawn before."""
    rng = np.random.default_rng([seed, number, *renderer.encode()])
    return {"renderer": renderer, **RENDERERS[renderer][0](rng, number)}


def render(images: np.ndarray, style: Style) -> np.ndarray:
    """Square pictures uint8 [V, H, H, 3] in a style, the same for the same pictures: uint8 [V, H, H, 3].

    Raises a UserError if the package of a network, or of an image, can't be had.
    """
    return RENDERERS[style["renderer"]][1](images, style)


def contents(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Crops of the photographs for a style to render, both uint8 [10, RENDERED, RENDERED, 3]: scored and condition.

    The scored ones show of each photograph what its caption says, from its very middle. The condition's are random:
    CROPS of each photograph of CONDITION, one photograph after another. Raises a UserError as `photographs`.
    """
    real, rng = photographs(), np.random.default_rng(seed)
    scored = [_cut(each.image, FRAMINGS[each.framing], 0.5, 0.5, RENDERED) for each in real]
    chosen = [real[i].image for i in CONDITION for _ in range(CROPS)]
    return np.stack(scored), np.stack([_random_cut(image, rng, RENDERED) for image in chosen])


def _random_cut(image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    return _cut(image, rng.uniform(*CROP_SIDES), rng.uniform(), rng.uniform(), size)


def _cut(image: np.ndarray, share: float, x: float, y: float, size: int) -> np.ndarray:
    """A square of that share of the shorter side; x and y in 0..1 go from left to right and from top to bottom."""
    height, width, _ = image.shape
    side = share * min(height, width)
    return cut(image, side, x * (width - side), y * (height - side), size)


# --- colours ------------------------------------------------------------------------------------


def _colour(rng: np.random.Generator, darkest: float, lightest: float) -> list[int]:
    """A colour of any hue, its brightness between two of 0..1."""
    saturation, wanted = rng.uniform(0.4, 1), rng.uniform(darkest, lightest)
    colour = np.array(colorsys.hsv_to_rgb(rng.uniform(), saturation, 1))
    bright = colour @ (0.3, 0.59, 0.11)
    darker, lighter = colour * wanted / bright, 1 - (1 - colour) * (1 - wanted) / (1 - bright)
    return [round(255 * value) for value in (darker if wanted < bright else lighter)]


def _palette(rng: np.random.Generator, count: int) -> list[list[int]]:
    """Colours from dark to light, well apart."""
    width = 0.6 / count
    return [_colour(rng, low, low + width) for low in np.linspace(0.03, 0.97 - width, count)]


def _between(stops: list[float], colours: list[list[int]], at: np.ndarray) -> np.ndarray:
    """Colours uint8 [..., 3] at places of 0..1, on straight lines from stop to stop."""
    channels = np.array(colours, float).T
    return np.stack([np.interp(at, stops, channel) for channel in channels], -1).round().astype(np.uint8)


# --- gradings -----------------------------------------------------------------------------------

TONES = np.linspace(0, 1, 256)


def _draw_grading(rng: np.random.Generator, _: int) -> Style:
    """What is light stays light, but for a solarised picture's lightest parts: a grading that a person would choose."""
    kind = str(rng.choice(["duotone", "tritone", "posterised", "solarised", "mix"]))
    if kind in ("duotone", "tritone"):
        stops = [0, 1] if kind == "duotone" else [0, _real(rng, 0.3, 0.6), 1]
        return {"kind": kind, "stops": stops, "colours": _palette(rng, len(stops)), "gamma": _real(rng, 0.7, 1.4)}
    if kind == "posterised":
        count = int(rng.integers(3, 6))
        edges = np.arange(1, count) / count + rng.uniform(-0.3, 0.3, count - 1) / count
        return {"kind": kind, "edges": edges.round(3).tolist(), "colours": _palette(rng, count)}
    if kind == "solarised":
        turns, depths = rng.uniform(0.45, 0.85, 3), rng.uniform(0.2, 1, 3)
        return {"kind": kind, "turns": turns.round(3).tolist(), "depths": depths.round(3).tolist()}
    matrix = np.eye(3) + rng.normal(scale=0.4, size=(3, 3))
    matrix += (1 - matrix.sum(1))[:, None] / 3  # a grey keeps its brightness
    matrix *= rng.uniform(0.7, 1.4)
    shift = 128 - 128 * matrix.sum(1) + rng.uniform(-50, 50, 3)  # middle grey stays in the middle, tinted
    return {"kind": kind, "matrix": matrix.round(3).tolist(), "shift": shift.round(1).tolist()}


def _grade(images: np.ndarray, style: Style) -> np.ndarray:
    kind = style["kind"]
    if kind == "mix":
        return rendering.mixed(images, np.array(style["matrix"]), np.array(style["shift"]))
    if kind == "solarised":
        bends = zip(style["turns"], style["depths"], strict=True)
        curves = np.stack([np.interp(TONES, [0, turn, 1], [0, 255, 255 * (1 - depth)]) for turn, depth in bends])
        return rendering.curved(images, curves.round().astype(np.uint8))
    if kind == "posterised":
        return rendering.toned(images, np.array(style["colours"], np.uint8)[np.searchsorted(style["edges"], TONES)])
    return rendering.toned(images, _between(style["stops"], style["colours"], TONES ** style["gamma"]))


def _real(rng: np.random.Generator, low: float, high: float) -> float:
    return round(rng.uniform(low, high), 3)


# --- prints and strokes -------------------------------------------------------------------------


def _draw_print(rng: np.random.Generator, _: int) -> Style:
    colours = [_colour(rng, 0.02, 0.35), _colour(rng, 0.6, 0.95)]
    if rng.uniform() < 0.4:
        colours.reverse()
    kind = str(rng.choice(["wash", "cut", "outline", "relief", "tiles"]))
    return {"kind": kind, "ink": colours[0], "paper": colours[1], "size": _real(rng, 3, 9)}


def _draw_strokes(rng: np.random.Generator, _: int) -> Style:
    kind = str(rng.choice(["hatching", "cross-hatching", "halftone", "charcoal", "chalk"]))
    dark, light = _colour(rng, 0.02, 0.3), _colour(rng, 0.65, 0.95)
    dark_ink = kind == "charcoal" or (kind != "chalk" and rng.uniform() < 0.65)
    found: Style = {"kind": kind, "ink": dark if dark_ink else light, "paper": light if dark_ink else dark}
    if kind in ("charcoal", "chalk"):
        strength = _real(rng, 0.7, 1.2) if kind == "charcoal" else _real(rng, 0.5, 1.0)
        return {**found, "degrees": int(rng.choice([0, 45, 90, 135])), "strength": strength}
    # A quarter turn leaves dots and crossed lines as they are; at half the size periods still are 4 pixels and more.
    degrees = int(rng.choice([0, 45, 90, 135] if kind == "hatching" else [0, 45]))
    return {**found, "degrees": degrees, "period": int(rng.choice([8, 10, 13, 16]))}


def _on_paper(images: np.ndarray, style: Style) -> np.ndarray:
    lay: Callable[..., np.ndarray] = rendering.printed if style["renderer"] == "print" else rendering.strokes
    given = {key: np.array(value, float) if key in ("ink", "paper") else value for key, value in style.items()}
    del given["renderer"]
    return np.stack([lay(image, **given) for image in images])


# --- styles of images ---------------------------------------------------------------------------


def _draw_image(rng: np.random.Generator, _: int) -> Style:
    colours = _palette(rng, int(rng.integers(2, 6)))
    if rng.uniform() < 0.3:
        rng.shuffle(colours)
    elif rng.uniform() < 0.2:
        colours.reverse()
    pattern = str(rng.choice(list(PATTERNS)))
    return {
        "picture": int(rng.integers(len(pictures()))),
        "pattern": pattern,
        "share": _real(rng, *PATTERNS[pattern]),
        "seed": int(rng.integers(2**31)),
        "colours": colours,
        "edges": str(rng.choice(["hard", "soft"])),
        "gain": _real(rng, 0.8, 1.3),
    }


def style_image(style: Style) -> np.ndarray:
    """The image uint8 [256, 256, 3] that a style of the family `image` is taken of.

    A crop of a picture and a fine pattern are laid over each other and recoloured by brightness, each colour as often
    as the others. Either alone gives mush: the network takes smooth shades for blur, and makes a pattern of everything.
    """
    rng, side = np.random.default_rng(style["seed"]), rendering.STYLE_SIDE
    picture = gaussian_filter(_random_cut(pictures()[style["picture"]], rng, side).mean(-1), 1)
    pattern = _pattern(style["pattern"], rng, side)
    place = _ranks((1 - style["share"]) * _ranks(picture) + style["share"] * _ranks(pattern))
    colours = style["colours"]
    if style["edges"] == "hard":
        return np.array(colours, np.uint8)[(place * len(colours)).astype(int)]
    return _between(np.linspace(0, 1, len(colours)).tolist(), colours, place)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Uniform in 0..1, 1 itself left out, in the values' order."""
    return values.argsort(axis=None, kind="stable").argsort().reshape(values.shape) / values.size


def _pattern(kind: str, rng: np.random.Generator, side: int) -> np.ndarray:
    """One of PATTERNS, [side, side], of details that are fine beside what a picture shows."""
    noise = rng.standard_normal((side, side))
    if kind == "blobs":
        return gaussian_filter(noise, rng.uniform(1.5, 6))
    if kind == "strands":
        return gaussian_filter(noise, rng.permutation([rng.uniform(3, 8), rng.uniform(0.7, 1.5)]))
    u, v = rendering.grid((side, side), rng.uniform(0, 180), period=rng.uniform(6, 18))
    bend = rng.uniform(0, 40) * gaussian_filter(noise, 16)
    return np.cos(2 * np.pi * u) * np.cos(2 * np.pi * v) if kind == "dots" else np.cos(2 * np.pi * (u + bend))


@cache
def pictures() -> list[np.ndarray]:
    """Images uint8 [H, W, 3] that styles are taken of."""
    files = [io.BytesIO(read_member("scikit-image", f"skimage/data/{name}")) for name in PICTURES]
    textures = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    return [*(each.image for each in photographs()), *textures]


@cache
def _mean_style() -> np.ndarray:
    return np.mean([rendering.style_vector(image) for image in pictures()], axis=0)


def _of_image(images: np.ndarray, style: Style) -> np.ndarray:
    """The style is taken beyond, or short of, its image's own distance from the mean style."""
    vector = _mean_style() + style["gain"] * (rendering.style_vector(style_image(style)) - _mean_style())
    return rendering.of_image_in_mosaics(images, vector)


RENDERERS: dict[str, tuple[Callable[[np.random.Generator, int], Style], Callable[[np.ndarray, Style], np.ndarray]]] = {
    "grading": (_draw_grading, _grade),
    "print": (_draw_print, _on_paper),
    "strokes": (_draw_strokes, _on_paper),
    "image": (_draw_image, _of_image),
    "fixed": (
        lambda _, number: {"index": number % FIXED_STYLES},
        lambda images, style: rendering.fixed_in_mosaic(images, style["index"]),
    ),
}
"""Of each family how a style is drawn, of randomness and its number (all but `renderer`), and what it does."""
