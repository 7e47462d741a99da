"""Sources of a style: rendered photographs, a folder, the hub; what is wrong with one is one line."""

from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from condpdiff.style.sources import Picture, read_source
from PIL import Image

from condpdiff.common.settings import parse
from condpdiff.style import rendering, sources
from condpdiff.style.images import encode_png
from condpdiff.style.photographs import Photograph
from condpdiff.style.task import TaskData
from tests.messages import message_of

pytestmark = pytest.mark.usefixtures("in_a_folder")
SIZE = 16


def read(source: dict[str, Any], train: int = 100, validation: int = 100, seed: int = 0) -> dict[str, list[Picture]]:
    data = parse(TaskData, {"size": SIZE, "source": source}, "task", "data")
    return read_source(data, "configs/tasks/mine.yaml", {"train": train, "validation": validation}, seed)


def all_of(source: dict[str, Any], **changes: int) -> list[Picture]:
    return [picture for each in read(source, **changes).values() for picture in each]


def refusal(source: dict[str, Any]) -> str:
    return message_of(read, source)


def pixels(picture: Picture) -> np.ndarray:
    image = Image.open(BytesIO(picture.png))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (SIZE, SIZE))
    return np.asarray(image)


def noise(seed: int, height: int = 20, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


CHALK = {"type": "rendered", "renderer": "chalk"}


@pytest.fixture
def _two_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = [Photograph("a cat", "whole", noise(0, 90, 120)), Photograph("a hat", "close-up", noise(1, 120, 90))]
    monkeypatch.setattr(sources, "photographs", lambda: real)


@pytest.mark.usefixtures("_two_photographs")
def test_every_photograph_is_rendered_as_often_in_crops_that_the_seeds_decide() -> None:
    found = read(CHALK, 16, 8)
    assert {split: len(each) for split, each in found.items()} == {"train": 16, "validation": 8}
    captions = [picture.caption for picture in found["train"]]
    assert sorted(captions) == sorted(2 * [picture.caption for picture in found["validation"]])
    assert set(captions) == {"a photograph of a cat, whole", "a photograph of a hat, close-up"}
    assert all(np.ptp(pixels(picture)) > 0 for picture in found["train"])
    few, others = read(CHALK, 8, 8), [all_of(CHALK | {"seed": 1}), all_of(CHALK, seed=1)]
    assert few == {split: each[:8] for split, each in found.items()}  # more images begin as fewer
    assert len({p.png for p in (*found["train"], *found["validation"], *others[0], *others[1])}) == 24 + 2 * 200


@pytest.mark.usefixtures("_two_photographs")
def test_renderer_is_the_one_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise(2)).save("style.png")
    Path("broken.png").write_text("no image")
    monkeypatch.setattr(rendering, "fixed", lambda image, index: np.full_like(image, index))
    monkeypatch.setattr(rendering, "style_vector", lambda style: style[0, 0, 0])
    monkeypatch.setattr(rendering, "of_image", np.full_like)
    fixed, style = {"renderer": "fixed", "index": 7}, {"renderer": "image", "image": {"file": "style.png"}}
    assert (pixels(read(CHALK | fixed, 1, 1)["train"][0]) == 7).all()
    assert (pixels(read(CHALK | style, 1, 1)["train"][0]) == noise(2)[0, 0, 0]).all()
    for name, said in (("nowhere.png", "no such file 'nowhere.png'"), ("broken.png", "broken.png: not an image")):
        assert f"data.source.image.file: {said}" in refusal(CHALK | style | {"image": {"file": name}})


FOLDER = {"type": "folder", "path": "mine"}


@pytest.fixture
def mine() -> Path:
    folder = Path("mine")
    folder.mkdir()
    for i in range(10):
        Image.fromarray(noise(i)).save(folder / f"night_sky-{i:02}.png")
    return folder


def test_images_of_a_folder_are_shared_out_whatever_its_order(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(FOLDER)
    assert {split: len(each) for split, each in found.items()} == {"train": 8, "validation": 2}
    assert len({picture.png for each in found.values() for picture in each}) == 10
    assert found != read(FOLDER | {"seed": 1})
    assert len(read(FOLDER | {"validation": 0.5})["validation"]) == 5
    backwards = sorted(mine.iterdir(), reverse=True)
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(backwards))
    assert read(FOLDER) == found


def test_modes_and_sizes_may_be_mixed_and_other_files_stand_by(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (40, 17)).save(mine / "a.tif")
    Image.new("CMYK", (SIZE, SIZE)).save(mine / "03.JPG")
    for name in ("notes.txt", ".DS_Store"):
        (mine / name).write_text("mine")
    (mine / "below").mkdir()
    found = all_of(FOLDER)
    assert [pixels(picture).shape for picture in found] == [(SIZE, SIZE, 3)] * 12
    assert {picture.caption for picture in found} == {"night sky", "a", "a picture"}  # of the files' names
    assert capsys.readouterr().err == "mine: passed over 1 other files (notes.txt)\n"


def test_folder_without_images_and_images_that_can_not_be_used_are_one_line(mine: Path) -> None:
    Image.fromarray(noise(0, 30, SIZE - 1)).save(mine / "small.png")
    said = f"mine/small.png: found 15 x 30 pixels, allowed: at least {SIZE} x {SIZE} (data.size)"
    assert refusal(FOLDER) == said
    Path("empty").mkdir()
    place = "configs/tasks/mine.yaml: data.source.path"
    for path, said in (("empty", "no images in empty; allowed: .png, .jpg"), ("nowhere", "no such folder 'nowhere'")):
        assert refusal(FOLDER | {"path": path}).startswith(f"{place}: {said}")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["file,caption", "night_sky-0.png,x"], "no image 'night_sky-0.png' in mine (did you mean 'night_sky-0"),
        (["file,caption", "night_sky-01.png,x", "night_sky-01.png,y"], "file 'night_sky-01.png' stands there twice"),
        (["file,caption", "night_sky-00.png,\udcff"], "not UTF-8 at byte"),
        (["file,caption", "night_sky-00.png, "], "no caption of 'night_sky-00.png' (10 of 10 images have none)"),
        (["name,caption", "a,b"], "found columns 'name, caption'; allowed: 'file, caption'"),
    ],
)
def test_captions_come_from_the_file_and_wrong_ones_are_one_line(lines: list[str], expected: str, mine: Path) -> None:
    own = ['night_sky-00.png,"stars,  and a  moon"', *(f"night_sky-0{i}.png,NA" for i in range(1, 10))]
    (mine / "captions.csv").write_text("\n".join(["file,caption", *own]), encoding="utf-8-sig")
    assert [picture.caption for picture in all_of(FOLDER)].count("NA") == 9
    assert "stars, and a moon" in {picture.caption for picture in all_of(FOLDER)}
    (mine / "captions.csv").write_text("\n".join(lines), errors="surrogateescape")
    assert refusal(FOLDER).startswith(f"mine/captions.csv: {expected}")


HUB = {"type": "hub", "dataset": "artists/works", "caption": "genre"}
MUNCH = {"column": "artist", "value": "edvard-munch"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, no_hub: None) -> dict[str, Any]:
    """A data set of 12 images of two artists, the last one too small; gives what load_dataset was called with."""
    images = [{"bytes": encode_png(noise(i, *((20, 24) if i < 11 else (8, 8)))), "path": None} for i in range(12)]
    features = datasets.Features(
        image=datasets.Image(),
        artist=datasets.ClassLabel(names=["vincent-van-gogh", "edvard-munch"]),
        genre=datasets.ClassLabel(names=["still_life", "landscape"]),
        note=datasets.Value("string"),
    )
    columns = {"image": images, "artist": [0, 1] * 6, "genre": [0] * 6 + [1] * 6, "note": ["own words", None] * 6}
    works = datasets.Dataset.from_dict(columns, features)
    called: dict[str, Any] = {}

    def load_dataset(name: str, config: str | None, **options: Any) -> datasets.IterableDataset:
        called.update(options, name=name, config=config)
        return works.to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return called


def test_images_of_the_hub_are_read_as_a_stream(hub: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    found = read(HUB)
    assert hub == {"name": "artists/works", "config": None, "split": "train", "streaming": True}
    assert {split: len(each) for split, each in found.items()} == {"train": 9, "validation": 2}
    assert {picture.caption for picture in found["train"]} == {"still life", "landscape"}
    assert all(pixels(picture).any() for picture in found["train"])
    assert "passed over 1 images smaller than 16 x 16" in capsys.readouterr().err


@pytest.mark.usefixtures("hub")
def test_filter_keeps_one_class_or_word_and_no_more_is_read_than_the_splits_need() -> None:
    assert len(all_of(HUB | {"filter": MUNCH})) == 5
    assert len(all_of(HUB | {"filter": {"column": "note", "value": "own words"}})) == 6
    assert len(all_of(HUB | {"validation": 0.5}, train=3, validation=2)) == 6
    assert {picture.caption for picture in all_of(HUB | {"caption": "note"})} == {"own words", "a picture"}
    assert {picture.caption for picture in all_of(HUB | {"caption": None})} == {"a picture"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image": "imag"}, "data.source.image: no column 'imag' (did you mean 'image'?) in artists/works; allowed: "),
        ({"image": "note"}, "data.source: hub data set artists/works: row 1: not "),
        ({"filter": MUNCH | {"value": "edward-munch"}}, "filter.value: found 'edward-munch' (did you mean 'edvard-m"),
        ({"filter": {"column": "note", "value": "y"}}, "split train: no images with note 'y' of at least 16 x 16"),
    ],
)
def test_wrong_key_of_the_hub_is_one_line(changes: dict[str, Any], expected: str, hub: dict[str, Any]) -> None:
    assert expected in refusal(HUB | changes)
