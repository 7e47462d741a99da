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


def test_splits_are_written_with_a_description_and_the_same_bytes_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    write_images(20)
    for i in range(0, 20, 2):  # what stands twice is in one split alone
        Path(f"mine/copy-{i:03}.png").write_bytes(Path(f"mine/{i:03}.png").read_bytes())
    for out in ("out", "again"):
        prepare_data("mine", TASK, limits(held_out=8), Path(out))
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("description.json", "held_out.parquet", "train.parquet", "validation.parquet")
    ]
    for path in Path("out").iterdir():
        assert path.read_bytes() == Path("again", path.name).read_bytes()
    frames = {split: pd.read_parquet(f"out/{split}.parquet") for split in ("train", "held_out", "validation")}
    assert all(list(frame.columns) == ["caption", "image"] for frame in frames.values())
    assert (len(frames["validation"]), len(frames["held_out"])) == (6, 8)
    images = {split: set(frame["image"]) for split, frame in frames.items()}
    assert sum(map(len, images.values())) == len(set().union(*images.values()))
    draws = json.loads(Path("out/description.json").read_text())["style_images"]
    assert [len(draw) for draw in draws] == [3, 3]
    assert max(max(draw) for draw in draws) < len(frames["train"])
    told = capsys.readouterr()
    assert f"mine: train {len(frames['train'])} images (" in told.out and "validation 6 images (" in told.out
    assert "warning: mine: 6 validation images; a Fréchet distance to fewer than 64" in told.err


@pytest.mark.parametrize(
    ("count", "changes", "expected"),
    [
        (4, {}, "configs/tasks/mine.yaml: data.source: found 1 images for validation (params.yaml: data.max_validat"),
        (20, {"max_train": 1}, "found 1 images for train (params.yaml: data.max_train is 1), allowed: at least 2"),
        (20, {"held_out": 9}, "params.yaml: data.held_out: found 9, allowed: at most half of the 16 training rows of"),
        (20, {"max_train": 2}, "configs/tasks/mine.yaml: condition.images: found 3, allowed: at most the 2 training"),
    ],
)
def test_too_few_images_are_one_line(count: int, changes: dict[str, int], expected: str) -> None:
    write_images(count)
    assert expected in message_of(limits(**changes))


def test_rendered_style_has_as_many_images_as_are_asked_for() -> None:
    data = parse(TaskData, {"size": SIZE, "source": {"type": "rendered", "renderer": "charcoal"}}, "task", "data")
    frames = prepare(data, "charcoal", Data(max_train=60, held_out=20, max_validation=40))
    assert {split: len(frame) for split, frame in frames.items()} == {"train": 40, "held_out": 20, "validation": 40}
    assert frames["validation"]["caption"].nunique() == 10
    assert len(set().union(*(frame["image"] for frame in frames.values()))) == 100
