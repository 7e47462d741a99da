"""Renderers: the same picture for the same input, of the same size, and clearly another than the photograph."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

from condpdiff.style import rendering

Render = Callable[[np.ndarray], np.ndarray]


def disc(height: int = 96, width: int = 130, inside: int = 240, outside: int = 20) -> np.ndarray:
    """A red-lit bright disc on a dark ground."""
    y, x = np.mgrid[:height, :width]
    mask = np.hypot(y - height / 2, x - width / 2) < height / 4
    image = np.full((height, width, 3), outside, np.uint8)
    image[mask] = (inside, inside // 2, inside // 3)
    return image


def charcoal(image: np.ndarray) -> np.ndarray:
    return rendering.charcoal(image, np.random.default_rng(0))


def chalk(image: np.ndarray) -> np.ndarray:
    return rendering.chalk(image, np.random.default_rng(0))


def swirls(image: np.ndarray) -> np.ndarray:
    return rendering.fixed(image, 19)


def of_noise(image: np.ndarray) -> np.ndarray:
    style = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    return rendering.of_image(image, rendering.style_vector(style))


ALL = [charcoal, chalk, swirls, of_noise]
FILTERS = [charcoal, chalk]


@pytest.mark.parametrize("render", ALL)
@pytest.mark.parametrize("shape", [(96, 130), (131, 97)])
def test_picture_keeps_its_size_and_changes_and_is_the_same_each_time(render: Render, shape: tuple[int, int]) -> None:
    image = disc(*shape)
    found = render(image)
    assert found.dtype == np.uint8
    assert found.shape == image.shape
    assert np.abs(found.astype(float) - image).mean() > 20
    assert (render(image) == found).all()


def test_styles_differ_from_one_another() -> None:
    renders = [*ALL, lambda image: rendering.fixed(image, 20)]
    for one, other in combinations([render(disc()).astype(float) for render in renders], 2):
        assert np.abs(one - other).mean() > 20


@pytest.mark.parametrize("filtered", [rendering.charcoal, rendering.chalk])
def test_grain_comes_from_the_generator(filtered: Callable[..., np.ndarray]) -> None:
    one, other = (filtered(disc(), np.random.default_rng(seed)) for seed in (0, 1))
    assert (one != other).any()


def test_charcoal_is_dark_where_the_photograph_is_and_has_no_colour() -> None:
    found = charcoal(disc()).astype(float)
    assert found[48, 60:70].mean() > found[:10].mean() + 80
    assert np.ptp(found, axis=2).max() < 20


def test_chalk_lies_where_the_photograph_is_bright_and_leaves_the_board_elsewhere() -> None:
    found = chalk(disc()).astype(float)
    assert found[38:58, 55:75].mean() > found[:10].mean() + 50
    assert np.abs(found[:10].mean((0, 1)) - rendering.BOARD).max() < 30


@pytest.mark.parametrize("render", FILTERS)
def test_outlines_are_drawn(render: Render) -> None:
    """On the edge between two near greys there is more pigment than on either side."""
    image = np.full((96, 96, 3), 120, np.uint8)
    image[:, 48:] = 160
    profile = render(image).mean((0, 2))
    sides = np.concatenate([profile[20:40], profile[56:76]])
    edge = profile[46:50].mean()
    assert edge < sides.min() if render is charcoal else edge > sides.max()


@pytest.mark.parametrize("render", ALL)
def test_image_of_one_colour_is_rendered_too(render: Render) -> None:
    assert render(np.full((40, 50, 3), 128, np.uint8)).shape == (40, 50, 3)


def test_image_larger_than_the_canvas_keeps_its_size() -> None:
    assert of_noise(disc(200, 500)).shape == (200, 500, 3)


def test_networks_run_on_one_thread() -> None:
    options = rendering._session("multistyle26").get_session_options()
    assert options.intra_op_num_threads == options.inter_op_num_threads == 1
