"""Photographs: ten real ones, and crops that show what their words say."""

import numpy as np
import pytest

from condpdiff.style.photographs import FRAMINGS, Photograph, photographs


def coordinates(height: int, width: int) -> np.ndarray:
    """A picture that tells where each pixel stands: red grows to the right, green downwards, 0 to 255."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return image


def crops(framing: str, height: int = 200, width: int = 300) -> np.ndarray:
    photograph = Photograph("a cat", framing, coordinates(height, width))
    return np.stack([photograph.crop(np.random.default_rng(seed), 16) for seed in range(40)]).astype(float)


def test_every_photograph_is_there_in_colour() -> None:
    found = photographs()
    assert len({photograph.caption for photograph in found}) == 10
    assert {photograph.framing for photograph in found} == FRAMINGS.keys()
    for _, _, image in found:
        assert image.dtype == np.uint8 and image.shape[2:] == (3,)
        assert min(image.shape[:2]) >= 300 and image.std() > 20
    assert Photograph("a cat", "close-up", coordinates(2, 2)).caption == "a photograph of a cat, close-up"


@pytest.mark.parametrize(("height", "width"), [(200, 300), (300, 200), (64, 64), (30, 900)])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_crop_of_any_photograph_is_decided_by_its_generator(framing: str, height: int, width: int) -> None:
    one, again = (crops(framing, height, width) for _ in range(2))
    assert one.shape == (40, 16, 16, 3)
    assert (one == again).all() and (one[0] != one[1]).any()


def test_close_up_shows_about_half_of_what_the_whole_shows() -> None:
    whole, close = (np.ptp(crops(framing)[..., 1], axis=(1, 2)).mean() for framing in ("whole", "close-up"))
    assert 0.45 < close / whole < 0.7


@pytest.mark.parametrize("framing", FRAMINGS)
def test_crops_lie_around_the_middle_of_the_photograph(framing: str) -> None:
    middles = crops(framing)[:, 7:9, 7:9, :2].mean(axis=(1, 2)) / 255 * (300, 200)  # [40, 2]: pixels
    shifts = (middles - (150, 100)) / (FRAMINGS[framing] * 200)
    assert (np.abs(shifts) < 0.015).all()  # 8 bits tell a place to 0.006
    assert (np.ptp(shifts, axis=0) > 0.004).all()
