"""Families of styles: any number of them, each the same again, and all told apart."""

import json
from itertools import combinations

import numpy as np
import pytest

from condpdiff.style import rendering
from condpdiff.style.families import drawing
from condpdiff.style.families.drawing import Style, draw, render
from condpdiff.style.photographs import photographs

OF_PIXELS = ("grading", "print", "strokes")
"""Families that render each picture by itself, without a network."""


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return drawing.contents(0)[0][:3]


def first(renderer: str, **wanted: str) -> Style:
    styles = (draw(renderer, i, 0) for i in range(200))
    return next(style for style in styles if wanted.items() <= style.items())


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
    if renderer != "fixed":
        assert all(style != draw(renderer, i, 1) for i, style in enumerate(in_a_row))
    if renderer in OF_PIXELS:
        assert len({draw(renderer, i, 0)["kind"] for i in range(60)}) == 5


def test_fixed_styles_come_round_again_after_26() -> None:
    assert draw("fixed", 30, 0) == draw("fixed", 4, 1)
    assert {draw("fixed", i, 0)["index"] for i in range(26)} == set(range(26))


# --- rendering ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("renderer", "count"), [("grading", 12), ("print", 12), ("strokes", 12), ("image", 3), ("fixed", 3)]
)
def test_styles_differ_and_their_json_is_all_that_decides(renderer: str, count: int, pictures: np.ndarray) -> None:
    found = [render(pictures, draw(renderer, i, 0)) for i in range(count)]
    assert all(each.dtype == np.uint8 and each.shape == pictures.shape for each in found)
    distances = [distance(one, other) for one, other in combinations(found, 2)]
    assert min(distances) > 8 and np.mean(distances) > 40
    assert np.mean([distance(each, pictures) for each in found]) > 40
    assert (render(pictures, json.loads(json.dumps(draw(renderer, 1, 0)))) == found[1]).all()


@pytest.mark.parametrize("renderer", OF_PIXELS)
def test_picture_is_rendered_by_itself(renderer: str, pictures: np.ndarray) -> None:
    for style in (draw(renderer, i, 0) for i in range(12)):
        assert (render(pictures, style)[1] == render(pictures[1:2], style)[0]).all()
    assert render(np.zeros((2, 50, 50, 3), np.uint8), style).shape == (2, 50, 50, 3)


def test_grading_maps_each_pixel_by_its_colour_alone(pictures: np.ndarray) -> None:
    turned = pictures[:, ::-1].swapaxes(1, 2)
    for style in (draw("grading", i, 0) for i in range(12)):
        assert (render(turned, style) == render(pictures, style)[:, ::-1].swapaxes(1, 2)).all()


def test_posterised_pictures_have_the_colours_of_the_palette_and_a_duotone_ends_in_its_two(
    pictures: np.ndarray,
) -> None:
    style = first("grading", kind="posterised")
    found = {tuple(colour) for colour in render(pictures, style).reshape(-1, 3).tolist()}
    assert found == {tuple(colour) for colour in style["colours"]}
    style = first("grading", kind="duotone")
    assert render(halves(0, 255), style)[0, 0, [0, -1]].tolist() == style["colours"]


@pytest.mark.parametrize("kind", ["wash", "cut", "tiles"])
def test_print_has_ink_where_the_picture_asks_for_it_and_paper_elsewhere(kind: str) -> None:
    style = first("print", kind=kind)
    dark_ink = sum(style["ink"]) < sum(style["paper"])
    printed = render(halves(0, 255) if dark_ink else halves(255, 0), style)[0, 64, [0, -1]]
    assert np.abs(printed.astype(float) - [style["ink"], style["paper"]]).max() < 70


def test_ink_goes_where_the_picture_asks_for_it() -> None:
    """More where it is dark, or with an ink lighter than its paper where it is bright."""
    for style in (draw("strokes", i, 0) for i in range(40)):
        dark, bright = (half.mean() for half in np.split(render(halves(), style)[0], 2, axis=1))
        assert dark + 20 < bright, style["kind"]


@pytest.mark.parametrize(("degrees", "along"), [(0, (1, 0)), (90, (0, 1)), (45, (1, 1)), (135, (1, -1))])
def test_hatching_lies_at_its_angle_and_repeats_after_its_period(degrees: int, along: tuple[int, int]) -> None:
    style, even = first("strokes", kind="hatching"), np.full((1, 128, 128, 3), 128, np.uint8)
    found = render(even, {**style, "degrees": degrees, "period": 8})[0, ..., 1].astype(float)
    moved = np.roll(found, along, (0, 1))[1:-1, 1:-1]
    assert np.abs(moved - found[1:-1, 1:-1]).max() <= 1
    if degrees == 0:
        assert (np.roll(found, 8, 1) == found).all() and np.ptp(found) > 50


def test_image_of_a_style_has_the_colours_of_its_palette() -> None:
    style = first("image", edges="hard")
    image = drawing.style_image(style)
    colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    assert image.shape == (rendering.STYLE_SIDE, rendering.STYLE_SIDE, 3)
    assert sorted(colours.tolist()) == sorted(style["colours"])
    assert np.ptp(counts) <= 1  # each as often


# --- contents -----------------------------------------------------------------------------------


def test_contents_are_the_photographs_and_other_crops_of_those_that_are_not_scored() -> None:
    (scored, one), (again, other) = drawing.contents(0), drawing.contents(1)
    assert scored.dtype == one.dtype == np.uint8 and scored.shape == one.shape == (10, 128, 128, 3)
    assert (scored == again).all() and (drawing.contents(0)[1] == one).all()
    assert all((a != b).any() for a, b in zip(one, other, strict=True))
    for found, photograph in zip(scored, photographs(), strict=True):
        assert distance(found, photograph.crop(np.random.default_rng(0), 128)) < 15  # moved by less than a pixel
    assert sorted(drawing.SCORED + drawing.CONDITION) == list(range(10))
