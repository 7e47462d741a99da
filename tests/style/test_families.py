"""Families of styles: any number of them, each the same again, and all told apart."""

import json
from itertools import combinations

import numpy as np
import pytest

from condpdiff.style import rendering
from condpdiff.style.families import drawing
from condpdiff.style.families.drawing import Style, draw
from condpdiff.style.photographs import Photograph, photographs

OF_PIXELS = ("grading", "print", "strokes")
"""Families that render each picture by itself, without a network."""


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return drawing.contents(0)[0][:3]


def first(renderer: str, kind: str, count: int = 200) -> Style:
    return next(style for style in (draw(renderer, i, 0) for i in range(count)) if style.parameters["kind"] == kind)


def halves(dark: int = 40, bright: int = 215) -> np.ndarray:
    """Dark to the left, bright to the right; [1, 128, 128, 3]."""
    image = np.full((1, 128, 128, 3), dark, np.uint8)
    image[:, :, 64:] = bright
    return image


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(((one.astype(float) - other) ** 2).mean()))


# --- drawing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("renderer", drawing.RENDERERS)
def test_style_is_the_same_whatever_was_drawn_before(renderer: str) -> None:
    alone = draw(renderer, 7, 3).parameters
    in_a_row = [draw(renderer, i, 3).parameters for i in range(10)]
    assert in_a_row[7] == alone and alone["renderer"] == renderer
    assert all(one != other for one, other in combinations(in_a_row, 2))


@pytest.mark.parametrize("renderer", ["grading", "print", "strokes", "image"])
def test_another_seed_draws_other_styles(renderer: str) -> None:
    assert all(draw(renderer, i, 0).parameters != draw(renderer, i, 1).parameters for i in range(10))


def test_fixed_styles_come_round_again_after_26() -> None:
    assert draw("fixed", 30, 0) == draw("fixed", 4, 1)
    assert {draw("fixed", i, 0).parameters["index"] for i in range(26)} == set(range(26))


@pytest.mark.parametrize("renderer", OF_PIXELS)
def test_every_kind_is_drawn(renderer: str) -> None:
    assert len({draw(renderer, i, 0).parameters["kind"] for i in range(60)}) == 5


# --- rendering ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("renderer", "count"), [("grading", 12), ("print", 12), ("strokes", 12), ("image", 3), ("fixed", 3)]
)
def test_styles_render_alike_pictures_and_differ(renderer: str, count: int, pictures: np.ndarray) -> None:
    found = [draw(renderer, i, 0)(pictures) for i in range(count)]
    assert all(each.dtype == np.uint8 and each.shape == pictures.shape for each in found)
    distances = [distance(one, other) for one, other in combinations(found, 2)]
    assert min(distances) > 8 and np.mean(distances) > 40
    assert np.mean([distance(each, pictures) for each in found]) > 40
    assert (draw(renderer, 1, 0)(pictures) == found[1]).all()


@pytest.mark.parametrize(
    ("renderer", "count"), [("grading", 12), ("print", 12), ("strokes", 12), ("image", 1), ("fixed", 1)]
)
def test_parameters_are_json_and_all_that_decides(renderer: str, count: int, pictures: np.ndarray) -> None:
    for i in range(count):
        style = draw(renderer, i, 5)
        assert (Style(json.loads(json.dumps(style.parameters)))(pictures) == style(pictures)).all()


@pytest.mark.parametrize("renderer", OF_PIXELS)
def test_picture_is_rendered_by_itself(renderer: str, pictures: np.ndarray) -> None:
    for i in range(12):
        style = draw(renderer, i, 0)
        assert (style(pictures)[1] == style(pictures[1:2])[0]).all()
    assert draw(renderer, 0, 0)(np.zeros((2, 50, 50, 3), np.uint8)).shape == (2, 50, 50, 3)


def test_grading_maps_each_pixel_by_its_colour_alone(pictures: np.ndarray) -> None:
    turned = pictures[:, ::-1].swapaxes(1, 2)
    for i in range(12):
        style = draw("grading", i, 0)
        assert (style(turned) == style(pictures)[:, ::-1].swapaxes(1, 2)).all()


def test_posterised_pictures_have_the_colours_of_the_palette(pictures: np.ndarray) -> None:
    style = first("grading", "posterised")
    found = {tuple(colour) for colour in style(pictures).reshape(-1, 3).tolist()}
    assert found == {tuple(colour) for colour in style.parameters["colours"]}


def test_duotone_goes_from_one_colour_to_the_other() -> None:
    style = first("grading", "duotone")
    found = style(halves(0, 255))[0]
    assert [found[0, 0].tolist(), found[0, -1].tolist()] == style.parameters["colours"]


@pytest.mark.parametrize("kind", ["wash", "cut", "tiles"])
def test_print_has_ink_where_the_picture_asks_for_it_and_paper_elsewhere(kind: str) -> None:
    style = first("print", kind)
    dark_ink = sum(style.parameters["ink"]) < sum(style.parameters["paper"])
    printed = style(halves(0, 255) if dark_ink else halves(255, 0))[0]
    for place, colour in ((0, "ink"), (-1, "paper")):
        assert np.abs(printed[64, place].astype(float) - style.parameters[colour]).max() < 70


@pytest.mark.parametrize("kind", ["hatching", "cross-hatching", "halftone", "charcoal", "chalk"])
def test_ink_goes_where_the_picture_asks_for_it(kind: str) -> None:
    """More where it is dark, or with an ink lighter than its paper where it is bright."""
    drawn = [draw("strokes", i, 0) for i in range(40)]
    for style in [each for each in drawn if each.parameters["kind"] == kind]:
        dark, bright = (half.mean() for half in np.split(style(halves())[0], 2, axis=1))
        assert dark + 20 < bright


@pytest.mark.parametrize(("degrees", "along"), [(0, (1, 0)), (90, (0, 1)), (45, (1, 1)), (135, (1, -1))])
def test_hatching_lies_at_its_angle_and_repeats_after_its_period(degrees: int, along: tuple[int, int]) -> None:
    style = first("strokes", "hatching")
    even = np.full((1, 128, 128, 3), 128, np.uint8)
    found = Style({**style.parameters, "degrees": degrees, "period": 8})(even)[0, ..., 1].astype(float)
    moved = np.roll(found, along, (0, 1))[1:-1, 1:-1]
    assert np.abs(moved - found[1:-1, 1:-1]).max() <= 1
    if degrees == 0:
        assert (np.roll(found, 8, 1) == found).all() and np.ptp(found) > 50


def test_paper_is_the_same_for_all_pictures_and_its_furrows_turn() -> None:
    style, even = first("strokes", "charcoal"), np.full((2, 128, 128, 3), 90, np.uint8)
    one, same = style(even)
    assert (one == same).all()
    assert (one != Style({**style.parameters, "degrees": style.parameters["degrees"] + 45})(even)[0]).any()


def test_image_of_a_style_has_the_colours_of_its_palette() -> None:
    style = next(each for i in range(50) if (each := draw("image", i, 0)).parameters["edges"] == "hard")
    image = drawing.style_image(style.parameters)
    colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    assert image.shape == (rendering.STYLE_SIDE, rendering.STYLE_SIDE, 3)
    assert sorted(colours.tolist()) == sorted(style.parameters["colours"])
    assert np.ptp(counts) <= 1  # each as often


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_mosaics_give_every_picture_back_in_its_place(count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    seen = []

    def look(mosaic: np.ndarray) -> np.ndarray:
        seen.append(mosaic.shape)
        return mosaic

    assert (rendering._in_mosaics(images, 2, 2, 8, look) == images).all()
    assert seen == [(16, 16, 3)] * -(-count // 4)


# --- contents -----------------------------------------------------------------------------------


def test_contents_are_the_photographs_and_other_crops_of_those_that_are_not_scored() -> None:
    (scored, one), (again, other) = drawing.contents(0), drawing.contents(1)
    assert scored.dtype == one.dtype == np.uint8 and scored.shape == one.shape == (10, 128, 128, 3)
    assert (scored == again).all() and (drawing.contents(0)[1] == one).all()
    assert all((a != b).any() for a, b in zip(one, other, strict=True))
    for found, photograph in zip(scored, photographs(), strict=True):
        assert distance(found, photograph.crop(np.random.default_rng(0), 128)) < 15  # moved by less than a pixel
    assert sorted(drawing.SCORED + drawing.CONDITION) == list(range(10))


def test_condition_shows_each_of_its_photographs_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [Photograph("a wall", "whole", np.full((200, 300, 3), 10 * i, np.uint8)) for i in range(10)]
    monkeypatch.setattr(drawing, "photographs", lambda: plain)
    scored, condition = drawing.contents(0)
    assert scored[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert condition[:, 0, 0, 0].tolist() == [10, 10, 30, 30, 50, 50, 70, 70, 90, 90]
