"""Sources of a style: rendered photographs, a folder, the hub; what is wrong with one is one line."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest
from PIL import Image

from condpdiff.common.errors import UserError
from condpdiff.common.settings import parse
from condpdiff.style import rendering, sources
from condpdiff.style.images import encode_png
from condpdiff.style.photographs import Photograph
from condpdiff.style.sources import Picture, read_source
from condpdiff.style.task import TaskData

SIZE = 16
MOST = {"train": 100, "validation": 100}


def read(source: dict[str, Any], most: dict[str, int] | None = None, seed: int = 0) -> dict[str, list[Picture]]:
    data = parse(TaskData, {"size": SIZE, "source": source}, "task", "data")
    return read_source(data, "configs/tasks/mine.yaml", most or MOST, seed)


def message_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def pixels(picture: Picture) -> np.ndarray:
    image = Image.open(BytesIO(picture.png))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (SIZE, SIZE))
    return np.asarray(image)


def noise(seed: int, height: int = 20, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- rendered photographs -----------------------------------------------------------------------


@pytest.fixture
def two_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = [Photograph("a cat", "whole", noise(0, 90, 120)), Photograph("a hat", "close-up", noise(1, 120, 90))]
    monkeypatch.setattr(sources, "photographs", lambda: real)


CHALK = {"type": "rendered", "renderer": "chalk"}


@pytest.mark.usefixtures("two_photographs")
def test_every_photograph_is_rendered_as_often() -> None:
    found = read(CHALK, {"train": 16, "validation": 8})
    assert [len(found[split]) for split in ("train", "validation")] == [16, 8]
    captions = [picture.caption for picture in found["train"]]
    assert sorted(captions) == sorted(2 * [picture.caption for picture in found["validation"]])
    assert set(captions) == {"a photograph of a cat, whole", "a photograph of a hat, close-up"}
    for picture in found["train"]:
        assert np.ptp(pixels(picture)) > 0


@pytest.mark.usefixtures("two_photographs")
def test_crops_are_decided_by_the_seeds_and_differ_between_splits() -> None:
    one, again = read(CHALK, {"train": 8, "validation": 8}), read(CHALK, {"train": 8, "validation": 8})
    assert one == again
    others = [read(CHALK | {"seed": 1}, {"train": 8, "validation": 8}), read(CHALK, {"train": 8, "validation": 8}, 1)]
    crops = [{picture.png for picture in each} for found in (one, *others) for each in found.values()]
    assert len(set.union(*crops)) == 6 * 8


@pytest.mark.usefixtures("two_photographs")
def test_more_images_begin_as_fewer() -> None:
    few, many = (read(CHALK, {"train": count, "validation": 2}) for count in (5, 12))
    assert many["train"][:5] == few["train"]


@pytest.mark.usefixtures("two_photographs")
def test_renderer_is_the_one_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise(2)).save("style.png")
    monkeypatch.setattr(rendering, "fixed", lambda image, index: np.full_like(image, index))
    monkeypatch.setattr(rendering, "style_vector", lambda style: style[0, 0, 0])
    monkeypatch.setattr(rendering, "of_image", np.full_like)
    fixed = read({"type": "rendered", "renderer": "fixed", "index": 7}, {"train": 1, "validation": 1})
    assert (pixels(fixed["train"][0]) == 7).all()
    style = {"type": "rendered", "renderer": "image", "image": {"file": "style.png"}}
    assert (pixels(read(style, {"train": 1, "validation": 1})["train"][0]) == noise(2)[0, 0, 0]).all()


@pytest.mark.usefixtures("two_photographs")
def test_style_image_that_is_missing_or_unreadable_is_named() -> None:
    style = {"type": "rendered", "renderer": "image", "image": {"file": "style.png"}}
    assert "data.source.image.file: no such file or folder 'style.png'" in message_of(lambda: read(style))
    Path("style.png").write_text("no image")
    assert "data.source.image.file: style.png: not an image" in message_of(lambda: read(style))
    style["image"] = {"package": "scikit-imag", "member": "a"}
    assert "data.source.image: unknown package 'scikit-imag' (did you mean 'scikit-image'?)" in message_of(
        lambda: read(style)
    )


# --- a folder -----------------------------------------------------------------------------------

FOLDER = {"type": "folder", "path": "mine"}


@pytest.fixture
def mine() -> Path:
    folder = Path("mine")
    folder.mkdir()
    for i in range(10):
        Image.fromarray(noise(i)).save(folder / f"night_sky-{i:02}.png")
    return folder


def test_images_of_a_folder_are_shared_out(mine: Path) -> None:
    found = read(FOLDER)
    assert [len(found[split]) for split in ("train", "validation")] == [8, 2]
    assert len({picture.png for each in found.values() for picture in each}) == 10
    assert found == read(FOLDER)
    assert found != read(FOLDER | {"seed": 1})
    assert len(read(FOLDER | {"validation": 0.5})["validation"]) == 5


def test_name_of_the_file_is_its_caption(mine: Path) -> None:
    Image.fromarray(noise(11)).save(mine / "03.jpg")
    assert {picture.caption for each in read(FOLDER).values() for picture in each} == {"night sky", "a picture"}


def test_modes_and_sizes_may_be_mixed(mine: Path) -> None:
    Image.new("L", (40, 17)).save(mine / "a.tif")
    Image.new("RGBA", (17, 40)).save(mine / "b.webp")
    Image.new("CMYK", (SIZE, SIZE)).save(mine / "c.JPG")
    assert sum(pixels(picture).shape == (SIZE, SIZE, 3) for each in read(FOLDER).values() for picture in each) == 13


def test_order_of_the_folder_does_not_matter(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(FOLDER)
    backwards = sorted(mine.iterdir(), reverse=True)
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(backwards))
    assert read(FOLDER) == expected


def test_other_files_are_passed_over_and_named(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mine / "notes.txt").write_text("mine")
    (mine / ".DS_Store").write_text("")
    (mine / "below").mkdir()
    assert sum(map(len, read(FOLDER).values())) == 10
    assert capsys.readouterr().err == "mine: passed over 1 other files (notes.txt)\n"


def test_absolute_path_is_a_warning(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read({"type": "folder", "path": str(mine.absolute())})
    assert "an absolute path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda: None, "data.source.path: no such file or folder 'mine' (a relative path starts at"),
        (lambda: Path("mine").write_text(""), "data.source.path: found 'mine', a file; allowed: a folder of images"),
        (lambda: Path("mine").mkdir(), "data.source.path: no images in mine; allowed: .png, .jpg"),
    ],
)
def test_folder_without_images_is_one_line(prepare: Callable[[], None], expected: str) -> None:
    prepare()
    assert f"configs/tasks/mine.yaml: {expected}" in message_of(lambda: read(FOLDER))


def test_unreadable_image_is_named(mine: Path) -> None:
    (mine / "night_sky-04.png").write_bytes(b"no image")
    assert message_of(lambda: read(FOLDER)).startswith("mine/night_sky-04.png: not an image")


def test_too_small_image_is_named(mine: Path) -> None:
    Image.fromarray(noise(0, 30, SIZE - 1)).save(mine / "small.png")
    assert message_of(lambda: read(FOLDER)) == (
        f"mine/small.png: found 15 x 30 pixels, allowed: at least {SIZE} x {SIZE} (data.size)"
    )


# --- captions.csv -------------------------------------------------------------------------------


def write_captions(folder: Path, *lines: str) -> None:
    names = [path.name for path in sorted(folder.glob("*.png"))][len(lines) :]
    rest = [f"{name},no. {i}" for i, name in enumerate(names)]
    (folder / "captions.csv").write_text("\n".join(["file,caption", *lines, *rest]), encoding="utf-8-sig")


def test_captions_come_from_the_file(mine: Path) -> None:
    write_captions(mine, 'night_sky-00.png,"stars,  and a  moon"', "night_sky-01.png,NA")
    captions = {picture.caption for each in read(FOLDER).values() for picture in each}
    assert {"stars, and a moon", "NA", "no. 7"} <= captions
    assert len(captions) == 10


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("file,caption\nnight_sky-0.png,x", "line 2: no image 'night_sky-0.png' in mine (did you mean 'night_sky-0"),
        ("file,caption\nnight_sky-01.png,x\nnight_sky-01.png,y", "line 3: file 'night_sky-01.png' stands there twice"),
        ("file,caption\nnight_sky-00.png,a,b", "line 2: found 3 values, allowed: 2 (a caption with a comma stands in"),
        ("file,caption\nnight_sky-00.png", "line 2: found 1 values, allowed: 2"),
        ('file,caption\nnight_sky-00.png,"a', "not readable as csv in UTF-8 ("),
        ("file,caption\nnight_sky-00.png,\udcff", "not readable as csv in UTF-8 ("),
        ("name,caption\nnight_sky-00.png,x", "found columns 'name, caption'; allowed: 'file, caption'"),
        ("", "found columns ''; allowed: 'file, caption'"),
    ],
)
def test_wrong_captions_are_one_line(content: str, expected: str, mine: Path) -> None:
    (mine / "captions.csv").write_text(content, errors="surrogateescape")
    assert f"mine/captions.csv: {expected}" in message_of(lambda: read(FOLDER))


@pytest.mark.parametrize("caption", ["", " "])
def test_empty_caption_is_named(caption: str, mine: Path) -> None:
    write_captions(mine, f"night_sky-00.png,{caption}")
    expected = "mine/captions.csv: no caption of 'night_sky-00.png' (1 of 10 images have none)"
    assert message_of(lambda: read(FOLDER)) == expected


def test_image_that_captions_leave_out_is_named(mine: Path) -> None:
    (mine / "captions.csv").write_text("file,caption\nnight_sky-01.png,x\n")
    expected = "mine/captions.csv: no caption of 'night_sky-00.png' (9 of 10 images have none)"
    assert message_of(lambda: read(FOLDER)) == expected


# --- the hub ------------------------------------------------------------------------------------

HUB = {"type": "hub", "dataset": "artists/works", "caption": "genre"}
MUNCH = {"column": "artist", "value": "edvard-munch"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
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
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return called


def test_images_of_the_hub_are_read_as_a_stream(hub: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    found = read(HUB)
    assert hub == {"name": "artists/works", "config": None, "split": "train", "streaming": True}
    assert [len(found[split]) for split in ("train", "validation")] == [9, 2]
    assert {picture.caption for picture in found["train"]} == {"still life", "landscape"}
    assert all(pixels(picture).any() for picture in found["train"])
    assert "passed over 1 images smaller than 16 x 16" in capsys.readouterr().err


@pytest.mark.usefixtures("hub")
def test_filter_keeps_one_class_or_word() -> None:
    assert sum(map(len, read(HUB | {"filter": MUNCH}).values())) == 5
    assert sum(map(len, read(HUB | {"filter": {"column": "note", "value": "own words"}}).values())) == 6


@pytest.mark.usefixtures("hub")
def test_no_more_is_read_than_the_splits_need() -> None:
    assert sum(map(len, read(HUB | {"validation": 0.5}, {"train": 3, "validation": 2}).values())) == 6


@pytest.mark.usefixtures("hub")
def test_image_without_a_caption_has_the_neutral_one() -> None:
    captions = [picture.caption for each in read(HUB | {"caption": "note"}).values() for picture in each]
    assert set(captions) == {"own words", "a picture"}
    without = {key: value for key, value in HUB.items() if key != "caption"}
    assert {picture.caption for picture in read(without)["train"]} == {"a picture"}


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image": "imag"}, "data.source.image: no column 'imag' (did you mean 'image'?) in artists/works; allowed: "),
        ({"image": "note"}, "data.source: hub data set artists/works: row 1: not "),
        (
            {"caption": "words"},
            "data.source.caption: no column 'words' in artists/works; allowed: image, artist, genre",
        ),
        ({"filter": {"column": "artis", "value": "x"}}, "data.source.filter.column: no column 'artis' (did you mean"),
        (
            {"filter": MUNCH | {"value": "edward-munch"}},
            "filter.value: found 'edward-munch' (did you mean 'edvard-munch'",
        ),
        ({"filter": {"column": "note", "value": "y"}}, "split train: no images with note 'y' of at least 16 x 16"),
    ],
)
def test_wrong_key_of_the_hub_is_one_line(changes: dict[str, Any], expected: str) -> None:
    assert expected in message_of(lambda: read(HUB | changes))


def test_hub_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = message_of(lambda: read(HUB))
    assert "hub data set artists/works: cannot be loaded with datasets.load_dataset (no route to host)" in message
    assert message.endswith("`data.source: {type: folder, path: FOLDER}`")
