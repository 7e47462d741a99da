"""Families of styles: any number of them, each the same again, and all told apart."""

import json
from itertools import combinations

import numpy as np
import pytest

from condpdiff.style import rendering
from condpdiff.style.families import drawing
from condpdiff.style.families.drawing import Style, draw, render
from condpdiff.style.photographs import FRAMINGS, Photograph, photographs

OF_PIXELS = ("grading", "print", "strokes")
"""Families that render each picture by itself, without a network."""


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return drawing.contents(0)[0][:3]


def first(renderer: str, **wanted: str) -> Style:
    return next(style for i in range(200) if wanted.items() <= (style := draw(renderer, i, 0)).items())


def halves(dark: int = 40, bright: int = 215) -> np.ndarray:
    """Dark to the left, bright to the right; [1, 128, 128, 3]."""
    return np.repeat([dark, bright], 64).astype(np.uint8)[None, None, :, None].repeat(128, 1).repeat(3, 3)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(((one.astype(float) - other) ** 2).mean()))


# --- drawing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("renderer", drawing.RENDERERS)
def test_style_is_the_same_whatever_was_drawn_before_and_another_seed_draws_others(renderer: str) -> None:
    alone = draw(renderer, 7, 3)
    in_a_row = [draw(renderer, i, 3) for i in range(10)]
    assert in_a_row[7] == alone and alone["renderer"] == renderer
    assert all(one != other for one, other in combinations(in_a_row, 2))
    if renderer in OF_PIXELS:
        assert len({draw(renderer, i, 0)["kind"] for i in range(60)}) == 5
    if renderer == "fixed":  # they come round again
        assert draw("fixed", 30, 0) == draw("fixed", 4, 1)
        assert sorted(draw("fixed", i, 0)["index"] for i in range(26)) == [*range(26)]
    else:
        assert all(style != draw(renderer, i, 1) for i, style in enumerate(in_a_row))


# --- rendering ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("renderer", "count"), [(name, 12) for name in OF_PIXELS] + [("image", 2), ("fixed", 2)])
def test_styles_differ_and_their_json_is_all_that_decides(renderer: str, count: int, pictures: np.ndarray) -> None:
    found = [render(pictures, draw(renderer, i, 0)) for i in range(count)]
    assert all(each.dtype == np.uint8 and each.shape == pictures.shape for each in found)
    distances = [distance(one, other) for one, other in combinations(found, 2)]
    assert min(distances) > 8 and np.mean(distances) > 40
    assert np.mean([distance(each, pictures) for each in found]) > 40
    assert (render(pictures, json.loads(json.dumps(draw(renderer, 1, 0)))) == found[1]).all()
    if renderer in OF_PIXELS:  # each picture by itself
        assert (render(pictures[1:2], draw(renderer, 0, 0))[0] == found[0][1]).all()


def test_ink_goes_where_the_picture_asks_for_it() -> None:
    """More where it is dark, or with an ink lighter than its paper where it is bright."""
    for style in (draw("strokes", i, 0) for i in range(20)):
        dark, bright = (half.mean() for half in np.split(render(halves(), style)[0], 2, axis=1))
        assert dark + 20 < bright, style["kind"]
    for kind in ("wash", "cut", "tiles"):
        style = first("print", kind=kind)
        dark_ink = sum(style["ink"]) < sum(style["paper"])
        printed = render(halves(0, 255) if dark_ink else halves(255, 0), style)[0, 64, [0, -1]]
        assert np.abs(printed.astype(float) - [style["ink"], style["paper"]]).max() < 70


def test_hatching_lies_at_its_angle() -> None:
    style, even = first("strokes", kind="hatching"), np.full((1, 128, 128, 3), 128, np.uint8)
    for degrees, along in ((0, (1, 0)), (90, (0, 1)), (45, (1, 1)), (135, (1, -1))):
        found = render(even, {**style, "degrees": degrees, "period": 8})[0, ..., 1].astype(float)
        assert np.ptp(found) > 50 and np.abs(np.roll(found, along, (0, 1)) - found)[1:-1, 1:-1].max() <= 1


@pytest.mark.parametrize("kind", ["charcoal", "chalk"])
def test_outlines_are_drawn(kind: str) -> None:
    """On the edge between two near greys there is more pigment than on either side."""
    image = np.full((96, 96, 3), 120, np.uint8)
    image[:, 48:] = 160
    dark, light = np.array([30.0, 30, 30]), np.array([240.0, 240, 230])
    ink, paper = (dark, light) if kind == "charcoal" else (light, dark)
    drawn = rendering.strokes(image, kind=kind, degrees=45, strength=0.8, ink=ink, paper=paper)
    profile = drawn.mean((0, 2))
    sides, edge = np.concatenate([profile[20:40], profile[56:76]]), profile[46:50].mean()
    assert edge < sides.min() if kind == "charcoal" else edge > sides.max()


def test_mosaics_give_every_picture_back_in_its_place() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    for count in (1, 4, 9):
        assert (rendering._in_mosaics(images[:count], 2, 2, 8, lambda mosaic: mosaic / 255) == images[:count]).all()


def test_networks_run_on_one_thread() -> None:
    options = rendering._session("multistyle26").get_session_options()
    assert options.intra_op_num_threads == options.inter_op_num_threads == 1


# --- contents -----------------------------------------------------------------------------------


def test_contents_are_the_ten_photographs_and_other_crops_of_those_that_are_not_scored() -> None:
    (scored, one), (again, other) = drawing.contents(0), drawing.contents(1)
    assert scored.dtype == one.dtype == np.uint8 and scored.shape == one.shape == (10, 128, 128, 3)
    assert (scored == again).all() and all((a != b).any() for a, b in zip(one, other, strict=True))
    found = photographs()
    for image, photograph in zip(scored, found, strict=True):
        assert distance(image, photograph.crop(np.random.default_rng(0), 128)) < 15  # moved by less than a pixel
    assert sorted(drawing.SCORED + drawing.CONDITION) == list(range(10))
    assert len({each.caption for each in found}) == 10 and {each.framing for each in found} == FRAMINGS.keys()
    assert all(min(each.image.shape[:2]) >= 300 and each.image.std() > 20 for each in found)


def crops(framing: str, height: int = 200, width: int = 300) -> np.ndarray:
    """Of a picture that tells where each pixel stands: red grows to the right, green downwards, 0 to 255."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.linspace(0, 255, width), np.linspace(0, 255, height)[:, None]
    photograph = Photograph("a cat", framing, image)
    assert photograph.caption == f"a photograph of a cat, {framing}"
    return np.stack([photograph.crop(np.random.default_rng(seed), 16) for seed in range(40)]).astype(float)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_crops_lie_around_the_middle_of_the_photograph_each_moved_by_its_generator(framing: str) -> None:
    for height, width in ((300, 200), (30, 900)):
        one = crops(framing, height, width)
        assert one.shape == (40, 16, 16, 3) and (one[0] != one[1]).any()
    found = crops(framing)
    assert (found == crops(framing)).all()
    middles = found[:, 7:9, 7:9, :2].mean(axis=(1, 2)) / 255 * (300, 200)  # [40, 2]: pixels
    shifts = (middles - (150, 100)) / (FRAMINGS[framing] * 200)
    assert (np.abs(shifts) < 0.015).all()  # 8 bits tell a place to 0.006
    assert (np.ptp(shifts, axis=0) > 0.004).all()
    assert np.ptp(found[..., 1], axis=(1, 2)).mean() / 255 == pytest.approx(FRAMINGS[framing], abs=0.1)
