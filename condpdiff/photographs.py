"""The real photographs that the small text-to-image model is trained on and rendered styles are made of."""

import importlib.util
import io
from pathlib import Path

import numpy as np
from PIL import Image

from condpdiff import packages

SUBJECTS = {  # what is on each photograph of scikit-image's wheel and of scikit-learn's sample images
    "an astronaut": "astronaut.png",
    "a cat": "chelsea.png",
    "a cup of coffee": "coffee.png",
    "a rocket": "rocket.jpg",
    "galaxies": "hubble_deep_field.jpg",
    "a retina": "retina.jpg",
    "stained tissue": "ihc.png",
    "a motorcycle": "motorcycle_left.png",
    "a temple": "china.jpg",
    "a flower": "flower.jpg",
}
OF_SCIKIT_LEARN = ("china.jpg", "flower.jpg")

FRAMINGS = ("whole", "close-up left", "close-up centre", "close-up right")
SIDES = {"whole": (0.85, 1.0), "close-up": (0.45, 0.6)}
"""Smallest and largest side of a crop, in sides of the photograph's shorter one."""
PLACES = {"left": 0.0, "centre": 0.5, "right": 1.0}
JITTER = 0.12


def photographs() -> list[tuple[str, np.ndarray]]:
    """The real photographs: the words for what is on each, and uint8 [H, W, 3].

    Raises:
        UserError: scikit-image's wheel can't be had.
    """
    return [(subject, np.asarray(Image.open(io.BytesIO(_photograph(file))))) for subject, file in SUBJECTS.items()]


def _photograph(file: str) -> bytes:
    if file not in OF_SCIKIT_LEARN:
        return packages.read_member("scikit-image", f"skimage/data/{file}")
    spec = importlib.util.find_spec("sklearn")  # not imported: that takes a second
    assert spec is not None and spec.origin is not None
    return (Path(spec.origin).parent / "datasets/images" / file).read_bytes()


def caption(subject: str, framing: str) -> str:
    """What the base model and every rendered style call a crop."""
    return f"a photograph of {subject}, {framing}"


def crop(image: np.ndarray, framing: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """A random square of a photograph [H, W, 3], as uint8 [size, size, 3].

    Left, centre and right are places across the width, so that the words tell what is to be seen; the height is free.
    """
    kind, _, place = framing.partition(" ")
    height, width, _ = image.shape
    side = rng.uniform(*SIDES[kind]) * min(height, width)
    left = (width - side) * np.clip(PLACES[place or "centre"] + rng.uniform(-JITTER, JITTER), 0, 1)
    top = (height - side) * rng.uniform()
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS, box))
