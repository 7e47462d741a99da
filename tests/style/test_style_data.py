"""prepare-data of a style: splits without a common image, the same bytes each time; too few images are one line."""

import json
from pathlib import Path

import pandas as pd
import pytest

from condpdiff.common.task import Data
from condpdiff.style.data import prepare_data
from tests.messages import message_of
from tests.style.stand_ins_style import make_images, make_style_task, png

pytestmark = pytest.mark.usefixtures("in_a_folder")


TASK = make_style_task()
TASK = TASK.model_copy(update={"condition": TASK.condition.model_copy(update={"images": 3, "draws": 2})})


def write_images(count: int) -> None:
    Path("waves").mkdir()
    for i, image in enumerate(make_images(count, 0)):
        Path(f"waves/{i:03}.png").write_bytes(png(image))


def limits(**changes: int) -> Data:
    return Data(**{"max_train": 1000, "max_validation": 1000} | changes)


def test_splits_are_written_with_a_description_and_the_same_bytes_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    write_images(20)
    for i in range(0, 20, 2):  # what stands twice is in one split alone
        Path(f"waves/copy-{i:03}.png").write_bytes(Path(f"waves/{i:03}.png").read_bytes())
    for out in ("out", "again"):
        prepare_data("mine", TASK, limits(held_out=8), Path(out))
    files = ["description.json", "held_out.parquet", "train.parquet", "validation.parquet"]
    assert sorted(path.name for path in Path("out").iterdir()) == files
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
        (20, {"max_train": 2}, "configs/tasks/mine.yaml: condition.images: found 3, allowed: at most the 2 training"),
    ],
)
def test_too_few_images_are_one_line(count: int, changes: dict[str, int], expected: str) -> None:
    write_images(count)
    assert expected in message_of(prepare_data, "mine", TASK, limits(**changes), Path("out"))
    assert not Path("out").exists()
