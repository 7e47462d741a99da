"""Photographs: ten real ones, and crops that show what their words say."""

import numpy as np
import pytest

from condpdiff.photographs import FRAMINGS, caption, crop, photographs


def coordinates(height: int, width: int) -> np.ndarray:
    """A picture that tells where each pixel stands: red grows to the right, green downwards, 0 to 255."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return image


def crops(framing: str, height: int = 200, width: int = 300) -> np.ndarray:
    image = coordinates(height, width)
    return np.stack([crop(image, framing, np.random.default_rng(i), 16) for i in range(40)]).astype(float)


def test_every_photograph_is_there_in_colour() -> None:
    found = photographs()
    assert len({subject for subject, _ in found}) == 10
    for _, image in found:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert min(image.shape[:2]) >= 300
        assert image.std() > 20


def test_caption_says_what_and_how() -> None:
    assert caption("a cat", "close-up left") == "a photograph of a cat, close-up left"


@pytest.mark.parametrize("framing", FRAMINGS)
def test_crop_is_decided_by_its_generator(framing: str) -> None:
    one, again, other = (crop(coordinates(200, 300), framing, np.random.default_rng(seed), 16) for seed in (0, 0, 1))
    assert one.shape == (16, 16, 3)
    assert one.dtype == np.uint8
    assert (one == again).all()
    assert (one != other).any()


def test_close_up_shows_about_half_of_what_the_whole_shows() -> None:
    whole, close = (np.ptp(crops(framing)[..., 1], axis=(1, 2)).mean() for framing in ("whole", "close-up centre"))
    assert 0.45 < close / whole < 0.7


def test_places_lie_side_by_side() -> None:
    left, centre, right = (
        crops(f"close-up {place}")[..., 0].mean(axis=(1, 2)) for place in ("left", "centre", "right")
    )
    assert left.max() < centre.min()
    assert centre.max() < right.min()


@pytest.mark.parametrize(("height", "width"), [(200, 300), (300, 200), (64, 64), (30, 900)])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_any_shape_of_photograph_can_be_cropped(framing: str, height: int, width: int) -> None:
    assert crops(framing, height, width).shape == (40, 16, 16, 3)
