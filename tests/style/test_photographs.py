"""Photographs: ten real ones, and crops that show what their words say."""

import numpy as np
import pytest

from condpdiff.style.photographs import FRAMINGS, Photograph, photographs


def crops(framing: str, height: int = 200, width: int = 300) -> np.ndarray:
    """Of a picture that tells where each pixel stands: red grows to the right, green downwards, 0 to 255."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.linspace(0, 255, width), np.linspace(0, 255, height)[:, None]
    photograph = Photograph("a cat", framing, image)
    assert photograph.caption == f"a photograph of a cat, {framing}"
    return np.stack([photograph.crop(np.random.default_rng(seed), 16) for seed in range(40)]).astype(float)


def test_every_photograph_is_there_in_colour() -> None:
    found = photographs()
    assert len({photograph.caption for photograph in found}) == 10
    assert {photograph.framing for photograph in found} == FRAMINGS.keys()
    for _, _, image in found:
        assert image.dtype == np.uint8 and image.shape[2:] == (3,)
        assert min(image.shape[:2]) >= 300 and image.std() > 20


@pytest.mark.parametrize("framing", FRAMINGS)
def test_crops_lie_around_the_middle_of_the_photograph_each_moved_by_its_generator(framing: str) -> None:
    for height, width in ((300, 200), (64, 64), (30, 900)):
        one, again = (crops(framing, height, width) for _ in range(2))
        assert one.shape == (40, 16, 16, 3) and (one == again).all() and (one[0] != one[1]).any()
    middles = crops(framing)[:, 7:9, 7:9, :2].mean(axis=(1, 2)) / 255 * (300, 200)  # [40, 2]: pixels
    shifts = (middles - (150, 100)) / (FRAMINGS[framing] * 200)
    assert (np.abs(shifts) < 0.015).all()  # 8 bits tell a place to 0.006
    assert (np.ptp(shifts, axis=0) > 0.004).all()
    assert np.ptp(crops(framing)[..., 1], axis=(1, 2)).mean() / 255 == pytest.approx(FRAMINGS[framing], abs=0.1)
