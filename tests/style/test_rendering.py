"""Strokes on paper: a picture of the same size, clearly another than the photograph, with pigment where it belongs."""

import numpy as np
import pytest

from condpdiff.style import rendering

DARK, LIGHT = np.array([30.0, 30, 30]), np.array([240.0, 240, 230])
COLOURS = {"charcoal": {"ink": DARK, "paper": LIGHT}, "chalk": {"ink": LIGHT, "paper": DARK}}
DISC = np.hypot(*np.mgrid[-48:48, -65:65]) < 24
IMAGE = np.where(DISC[..., None], (240, 120, 80), 20).astype(np.uint8)
"""A red-lit bright disc on a dark ground."""


def strokes(image: np.ndarray, kind: str) -> np.ndarray:
    return rendering.strokes(image, kind=kind, degrees=45, strength=0.8, **COLOURS[kind])


@pytest.mark.parametrize("kind", COLOURS)
@pytest.mark.parametrize("image", [IMAGE, IMAGE[:, ::-1].swapaxes(0, 1)], ids=["wide", "high"])
def test_picture_keeps_its_size_and_changes(kind: str, image: np.ndarray) -> None:
    found = strokes(image, kind)
    assert found.dtype == np.uint8 and found.shape == image.shape
    assert np.abs(found.astype(float) - image).mean() > 20
    assert strokes(np.full((40, 50, 3), 128, np.uint8), kind).shape == (40, 50, 3)  # of one colour


def test_charcoal_lies_where_the_photograph_is_dark_and_chalk_where_it_is_bright() -> None:
    grey, found = (strokes(IMAGE, kind).astype(float) for kind in ("charcoal", "chalk"))
    assert grey[48, 60:70].mean() > grey[:10].mean() + 80
    assert np.ptp(grey, axis=2).max() < 20  # no colour
    assert found[38:58, 55:75].mean() > found[:10].mean() + 50
    assert np.abs(found[:10].mean((0, 1)) - DARK).max() < 30


@pytest.mark.parametrize("kind", COLOURS)
def test_outlines_are_drawn(kind: str) -> None:
    """On the edge between two near greys there is more pigment than on either side."""
    image = np.full((96, 96, 3), 120, np.uint8)
    image[:, 48:] = 160
    profile = strokes(image, kind).mean((0, 2))
    sides, edge = np.concatenate([profile[20:40], profile[56:76]]), profile[46:50].mean()
    assert edge < sides.min() if kind == "charcoal" else edge > sides.max()


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_mosaics_give_every_picture_back_in_its_place(count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    seen = []

    def look(mosaic: np.ndarray) -> np.ndarray:
        seen.append(mosaic.shape)
        return mosaic / 255

    assert (rendering._in_mosaics(images, 2, 2, 8, look) == images).all()
    assert seen == [(16, 16, 3)] * -(-count // 4)


def test_networks_run_on_one_thread() -> None:
    options = rendering._session("multistyle26").get_session_options()
    assert options.intra_op_num_threads == options.inter_op_num_threads == 1
