"""A style's condition: draws of its training images and of noise, the same for the same seed."""

from pathlib import Path

import numpy as np
import pytest

from condpdiff.common.files import write_json
from condpdiff.style.conditions import DESCRIPTION, DRAWS, describe, inputs, nonsense_inputs, shown
from condpdiff.style.task import Task
from tests.style.stand_ins_style import SIZE, make_images, make_style_rows, make_style_task


def make_task(**condition: int) -> Task:
    task = make_style_task()
    changes = {"images": 3, "draws": 4} | condition
    return task.model_copy(update={"condition": task.condition.model_copy(update=changes)})


def draws_of(**condition: int) -> list[list[int]]:
    return describe(make_task(**condition), make_style_rows(9, 0), "")["style_images"]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Nine training images."""
    make_style_rows(9, 0).to_parquet(tmp_path / "train.parquet", index=False)
    write_json(tmp_path / DESCRIPTION, describe(make_task(), make_style_rows(9, 0), "task.yaml"))
    return tmp_path


def test_draws_are_training_images_each_once(prepared: Path) -> None:
    draws, known = inputs(prepared, "style_images"), {image.tobytes() for image in make_images(9, 0)}
    assert [draw.shape for draw in draws] == [(3, SIZE, SIZE, 3)] * 4
    assert all(len({image.tobytes() for image in draw} & known) == 3 for draw in draws)
    assert len({draw.tobytes() for draw in draws}) > 1


def test_nonsense_is_noise_of_the_size_and_number_of_a_draw_and_other_kinds_read_no_image(prepared: Path) -> None:
    found, again = (nonsense_inputs(make_task(), "style_images") for _ in range(2))
    assert [(draw.shape, draw.dtype) for draw in found] == [((3, SIZE, SIZE, 3), np.uint8)] * DRAWS
    assert len({draw.tobytes() for draw in found}) == DRAWS and np.array_equal(found, again)
    for kind in ("one_hot", "learnable"):
        assert inputs(prepared, kind) == nonsense_inputs(make_task(), kind) == []


def test_draws_differ_are_decided_by_their_seed_and_begin_as_fewer() -> None:
    one = draws_of(seed=0)
    assert one == draws_of(seed=0) != draws_of(seed=1)
    assert len({tuple(draw) for draw in one}) > 1
    assert draws_of(draws=5)[:2] == draws_of(draws=2)
    assert draws_of(images=9, draws=1) == [list(range(9))]  # all images may be one draw


def test_draw_is_shown_in_words_that_tell_it_from_others() -> None:
    one, other = make_images(3, 0), make_images(3, 1)
    assert shown(one).startswith(f"3 style images of {SIZE} x {SIZE} pixels")
    assert shown(one) == shown(np.copy(one)) != shown(other)
