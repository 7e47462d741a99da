"""The real photographs that the small text-to-image model is trained on and rendered styles are made of."""

import importlib.util
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from condpdiff.common import packages

SUBJECTS = {  # what is on each photograph of scikit-image's wheel and of scikit-learn's sample images, and its framing
    "an astronaut": ("astronaut.png", "whole"),
    "a cat": ("chelsea.png", "close-up"),
    "a cup of coffee": ("coffee.png", "whole"),
    "a rocket": ("rocket.jpg", "close-up"),
    "galaxies": ("hubble_deep_field.jpg", "whole"),
    "a retina": ("retina.jpg", "close-up"),
    "stained tissue": ("ihc.png", "whole"),
    "a motorcycle": ("motorcycle_left.png", "close-up"),
    "a temple": ("china.jpg", "whole"),
    "a flower": ("flower.jpg", "close-up"),
}
OF_SCIKIT_LEARN = ("china.jpg", "flower.jpg")

FRAMINGS = {"whole": 0.92, "close-up": 0.52}
"""What a caption says of a crop, and the crop's side in sides of the photograph's shorter one."""
SHIFT = 0.005  # how far a crop may lie from the middle of its photograph, in its own sides: a third of one pixel of 64


class Photograph(NamedTuple):
    """A real photograph uint8 [H, W, 3] and what is to be shown of it."""

    subject: str
    framing: str
    image: np.ndarray

    @property
    def caption(self) -> str:
        """What the base model and every rendered style call a crop."""
        return f"a photograph of {self.subject}, {self.framing}"

    def crop(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """The middle square that the framing names, moved by up to SHIFT: uint8 [size, size, 3].

        All crops show the same: a small model learns a caption's picture by heart, and a LoRA small enough to be
        generated can change only what the caption already brings up.
        """
        height, width, _ = self.image.shape
        side = FRAMINGS[self.framing] * min(height, width)
        x, y = rng.uniform(-SHIFT, SHIFT, 2) * side
        return cut(self.image, side, (width - side) / 2 + x, (height - side) / 2 + y, size)


def cut(image: np.ndarray, side: float, left: float, top: float, size: int) -> np.ndarray:
    """A square of an image uint8 [H, W, 3], its side and place in pixels, as uint8 [size, size, 3]."""
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS, box))


def photographs() -> list[Photograph]:
    """All of SUBJECTS; a UserError if scikit-image's wheel can't be had."""
    return [
        Photograph(subject, framing, np.asarray(Image.open(io.BytesIO(_photograph(file)))))
        for subject, (file, framing) in SUBJECTS.items()
    ]


def captions() -> list[str]:
    """Those of all photographs, in their order, which are those of a drawn style's images."""
    return [photograph.caption for photograph in photographs()]


def _photograph(file: str) -> bytes:
    if file not in OF_SCIKIT_LEARN:
        return packages.read_member("scikit-image", f"skimage/data/{file}")
    spec = importlib.util.find_spec("sklearn")  # not imported: that takes a second
    assert spec is not None and spec.origin is not None
    return (Path(spec.origin).parent / "datasets/images" / file).read_bytes()
