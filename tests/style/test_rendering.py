"""Renderers: the same picture for the same input, of the same size, and clearly another than the photograph."""

from collections.abc import Callable

import numpy as np
import pytest

from condpdiff.style import rendering

Render = Callable[[np.ndarray], np.ndarray]


def disc(height: int = 96, width: int = 130) -> np.ndarray:
    """A red-lit bright disc on a dark ground."""
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 20, np.uint8)
    image[np.hypot(y - height / 2, x - width / 2) < height / 4] = (240, 120, 80)
    return image


DARK, LIGHT = np.array([30.0, 30, 30]), np.array([240.0, 240, 230])


def charcoal(image: np.ndarray) -> np.ndarray:
    return rendering.charcoal(image, tooth=tooth(image), ink=DARK, paper=LIGHT, strength=0.9)


def chalk(image: np.ndarray) -> np.ndarray:
    return rendering.chalk(image, tooth=tooth(image), ink=LIGHT, paper=DARK, strength=0.62)


def tooth(image: np.ndarray) -> np.ndarray:
    return rendering.tooth(image.shape[:2], 45, np.random.default_rng(0))


@pytest.mark.parametrize("render", [charcoal, chalk])
@pytest.mark.parametrize("shape", [(96, 130), (131, 97)])
def test_picture_keeps_its_size_and_changes_and_is_the_same_each_time(render: Render, shape: tuple[int, int]) -> None:
    image = disc(*shape)
    found = render(image)
    assert found.dtype == np.uint8 and found.shape == image.shape
    assert np.abs(found.astype(float) - image).mean() > 20
    assert (render(image) == found).all()
    assert render(np.full((40, 50, 3), 128, np.uint8)).shape == (40, 50, 3)  # of one colour


def test_charcoal_lies_where_the_photograph_is_dark_and_chalk_where_it_is_bright() -> None:
    grey, found = charcoal(disc()).astype(float), chalk(disc()).astype(float)
    assert grey[48, 60:70].mean() > grey[:10].mean() + 80
    assert np.ptp(grey, axis=2).max() < 20  # no colour
    assert found[38:58, 55:75].mean() > found[:10].mean() + 50
    assert np.abs(found[:10].mean((0, 1)) - DARK).max() < 30


@pytest.mark.parametrize("render", [charcoal, chalk])
def test_outlines_are_drawn(render: Render) -> None:
    """On the edge between two near greys there is more pigment than on either side."""
    image = np.full((96, 96, 3), 120, np.uint8)
    image[:, 48:] = 160
    profile = render(image).mean((0, 2))
    sides = np.concatenate([profile[20:40], profile[56:76]])
    edge = profile[46:50].mean()
    assert edge < sides.min() if render is charcoal else edge > sides.max()


def test_networks_run_on_one_thread() -> None:
    options = rendering._session("multistyle26").get_session_options()
    assert options.intra_op_num_threads == options.inter_op_num_threads == 1
