"""prepare-data of a style: splits without a common image, the same bytes each time; too few images are one line."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from condpdiff.common.errors import UserError
from condpdiff.common.settings import parse
from condpdiff.common.task import Data
from condpdiff.style.data import prepare, prepare_data
from condpdiff.style.task import Task, TaskData

SIZE = 16


TASK = parse(
    Task,
    {
        "data": {"size": SIZE, "source": {"type": "folder", "path": "mine"}},
        "condition": {"description": "Mine", "images": 3, "draws": 2},
        "metrics": ["fd_lite0"],
        "finetune": {"steps": 4, "lr": 0.001},
    },
    "task.yaml",
)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_images(count: int) -> None:
    Path("mine").mkdir(exist_ok=True)
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(f"mine/{i:03}.png")


def limits(**changes: int) -> Data:
    return Data(**{"max_train": 1000, "max_validation": 1000} | changes)


def message_of(limits: Data) -> str:
    with pytest.raises(UserError) as error:
        prepare_data("mine", TASK, limits, Path("out"))
    assert "\n" not in str(error.value)
    assert not Path("out").exists()
    return str(error.value)


def test_splits_are_written_with_a_description(capsys: pytest.CaptureFixture[str]) -> None:
    write_images(20)
    prepare_data("mine", TASK, limits(held_out=4), Path("out"))
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("description.json", "held_out.parquet", "train.parquet", "validation.parquet")
    ]
    frames = {split: pd.read_parquet(f"out/{split}.parquet") for split in ("train", "held_out", "validation")}
    assert {split: len(frame) for split, frame in frames.items()} == {"train": 12, "held_out": 4, "validation": 4}
    assert all(list(frame.columns) == ["caption", "image"] for frame in frames.values())
    draws = json.loads(Path("out/description.json").read_text())["style_images"]
    assert [len(draw) for draw in draws] == [3, 3]
    assert max(max(draw) for draw in draws) < 12
    assert "mine: train 12 images (1 different captions), validation 4 images" in capsys.readouterr().out


def test_same_input_gives_the_same_bytes() -> None:
    write_images(20)
    for out in ("one", "again"):
        prepare_data("mine", TASK, limits(held_out=4), Path(out))
    for path in Path("one").iterdir():
        assert path.read_bytes() == Path("again", path.name).read_bytes()


def test_no_image_is_in_two_splits(capsys: pytest.CaptureFixture[str]) -> None:
    write_images(20)
    for i in range(20):
        Path(f"mine/copy-{i:03}.png").write_bytes(Path(f"mine/{i:03}.png").read_bytes())
    frames = prepare(TASK.data, "mine", limits(held_out=8))
    train, held_out, validation = (set(frames[split]["image"]) for split in ("train", "held_out", "validation"))
    assert not train & held_out
    assert not train & validation
    assert not held_out & validation
    assert len(frames["validation"]) == 8
    assert "images of train that are also in validation" in capsys.readouterr().err


def test_subsample_is_seeded_and_grows_with_the_limit() -> None:
    write_images(30)

    def train(limit: int, seed: int = 0) -> list[bytes]:
        return list(prepare(TASK.data, "mine", limits(max_train=limit, seed=seed))["train"]["image"])

    assert train(10) == train(10)
    assert train(10) != train(10, seed=1)
    assert set(train(10)) < set(train(15))
    assert [image for image in train(15) if image in train(10)] == train(10)


def test_held_out_grows_with_its_number() -> None:
    write_images(30)
    few, many = (list(prepare(TASK.data, "mine", limits(held_out=n))["held_out"]["image"]) for n in (3, 6))
    assert many[:3] == few


@pytest.mark.parametrize(
    ("count", "changes", "expected"),
    [
        (
            4,
            {},
            "configs/tasks/mine.yaml: data.source: found 1 images for validation (params.yaml: data.max_validation",
        ),
        (20, {"max_train": 1}, "found 1 images for train (params.yaml: data.max_train is 1), allowed: at least 2"),
        (
            20,
            {"held_out": 9},
            "params.yaml: data.held_out: found 9, allowed: at most half of the 16 training images of",
        ),
        (20, {"max_train": 2}, "configs/tasks/mine.yaml: condition.images: found 3, allowed: at most the 2 training"),
    ],
)
def test_too_few_images_are_one_line(count: int, changes: dict[str, int], expected: str) -> None:
    write_images(count)
    assert expected in message_of(limits(**changes))


def test_few_validation_images_are_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    write_images(20)
    prepare(TASK.data, "mine", limits())
    assert "warning: mine: 4 validation images; a Fréchet distance to fewer than 64" in capsys.readouterr().err


def test_rendered_style_has_as_many_images_as_are_asked_for() -> None:
    data = parse(TaskData, {"size": SIZE, "source": {"type": "rendered", "renderer": "charcoal"}}, "task", "data")
    frames = prepare(data, "charcoal", Data(max_train=60, held_out=20, max_validation=40))
    assert {split: len(frame) for split, frame in frames.items()} == {"train": 40, "held_out": 20, "validation": 40}
    assert frames["validation"]["caption"].nunique() == 10
    assert len(set().union(*(frame["image"] for frame in frames.values()))) == 100
