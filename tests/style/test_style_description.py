"""A style's condition: draws of its training images, the same for the same seed."""

from pathlib import Path

import numpy as np
import pytest

from condpdiff.common.errors import UserError
from condpdiff.common.files import write_json
from condpdiff.common.settings import parse
from condpdiff.style.conditions import DESCRIPTION, describe, inputs, shown
from condpdiff.style.task import Task
from tests.style.stand_ins_style import SIZE, make_images, make_style_rows


def make_task(**condition: object) -> Task:
    task = {
        "data": {"size": SIZE, "source": {"type": "rendered", "renderer": "chalk"}},
        "condition": {"description": "Chalk", "images": 3, "draws": 4} | condition,
        "metrics": ["fd_lite0"],
        "finetune": {"steps": 4, "lr": 0.001},
    }
    return parse(Task, task, "task.yaml")


def prepare(folder: Path, task: Task) -> Path:
    rows = make_style_rows(9, 0)
    rows.to_parquet(folder / "train.parquet", index=False)
    write_json(folder / DESCRIPTION, describe(task, rows, "task.yaml"))
    return folder


def test_draws_are_training_images_each_once(tmp_path: Path) -> None:
    known = {image.tobytes() for image in make_images(9, 0)}
    draws = inputs(prepare(tmp_path, make_task()), "style_images")
    assert [draw.shape for draw in draws] == [(3, SIZE, SIZE, 3)] * 4
    for draw in draws:
        found = {image.tobytes() for image in draw}
        assert len(found) == 3
        assert found <= known


def test_draws_differ_and_are_decided_by_their_seed(tmp_path: Path) -> None:
    rows = make_style_rows(9, 0)
    one, again, other = (describe(make_task(seed=seed), rows, "")["style_images"] for seed in (0, 0, 1))
    assert one == again
    assert one != other
    assert len({tuple(draw) for draw in one}) > 1


def test_more_draws_begin_as_fewer() -> None:
    rows = make_style_rows(9, 0)
    few, many = (describe(make_task(draws=draws), rows, "")["style_images"] for draws in (2, 5))
    assert many[:2] == few


@pytest.mark.parametrize("kind", ["one_hot", "learnable"])
def test_kinds_that_read_no_image_have_no_inputs(kind: str, tmp_path: Path) -> None:
    assert inputs(prepare(tmp_path, make_task()), kind) == []


def test_all_images_may_be_one_draw() -> None:
    assert describe(make_task(images=9, draws=1), make_style_rows(9, 0), "")["style_images"] == [list(range(9))]


def test_more_images_than_there_are_is_one_line() -> None:
    with pytest.raises(UserError) as error:
        describe(make_task(images=10), make_style_rows(9, 0), "configs/tasks/mine.yaml")
    assert str(error.value) == (
        "configs/tasks/mine.yaml: condition.images: found 10, allowed: at most the 9 training images"
    )


def test_draw_is_shown_in_words_that_tell_it_from_others() -> None:
    one, other = make_images(3, 0), make_images(3, 1)
    assert shown(one).startswith(f"3 style images of {SIZE} x {SIZE} pixels")
    assert shown(one) == shown(np.copy(one))
    assert shown(one) != shown(other)
