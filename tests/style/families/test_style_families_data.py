"""Families made ready: every member's images, and pictures of other content that tell of it."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from condpdiff.common.files import read_json, read_rows
from condpdiff.common.task import Data
from condpdiff.style.conditions import draws_of, inputs, pictures_of, shown
from condpdiff.style.data import NEUTRAL, prepare_data
from condpdiff.style.families import drawing
from condpdiff.style.images import shrink
from condpdiff.style.photographs import Photograph
from tests.messages import message_of
from tests.style.stand_ins_style import SIZE, make_family

LIMITS = Data(max_train=4, max_validation=1)
SPLITS = ["train", "held_out", "validation"]
DRAWN = {"type": "drawn", "renderer": "grading", "seed": 3}
pytestmark = pytest.mark.usefixtures("in_a_folder", "ten_photographs")


def prepared(name: str, source: dict[str, Any], **keys: Any) -> Path:
    prepare_data("waves", make_family(source, **keys), LIMITS, Path(name))
    return Path(name)


def of(folder: Path, split: str, member: int) -> pd.DataFrame:
    rows = read_rows(folder, split)
    assert list(rows) == ["member", "caption", "image"]
    return rows[rows["member"] == member].reset_index(drop=True)


def greys(rows: pd.DataFrame) -> list[int]:
    """The one grey of each image."""
    found = [np.asarray(Image.open(BytesIO(png))) for png in rows["image"]]
    assert all(image.shape == (SIZE, SIZE, 3) and np.ptp(image) == 0 for image in found)
    return [int(image[0, 0, 0]) for image in found]


# --- drawn --------------------------------------------------------------------------------------


def test_member_is_told_of_by_other_photographs_than_it_is_scored_on(
    ten_photographs: list[Photograph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A style that leaves pictures alone, so that an image tells the photograph that it is of."""
    monkeypatch.setitem(drawing.RENDERERS, "grading", (lambda *_: {}, lambda images, _: images))
    folder = prepared("family", DRAWN)
    captions = [photograph.caption for photograph in ten_photographs]
    for q in range(4):
        train, held_out, validation = (of(folder, split, q) for split in SPLITS)
        assert train["caption"].tolist() == captions and greys(train) == list(range(0, 100, 10))
        assert greys(validation) == [0, 20, 40, 60, 80]
        assert greys(held_out) == [10, 10, 30, 30, 50, 50, 70, 70, 90, 90]
        assert set(held_out["caption"]) == {NEUTRAL}
        true = train.set_index("caption")["image"]
        assert validation["image"].tolist() == true[validation["caption"]].tolist()
    assert len(read_rows(folder, "train")) == 40


def test_images_are_of_the_style_that_the_description_keeps_and_the_same_each_time() -> None:
    one, again = prepared("one", DRAWN), prepared("again", DRAWN)
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in again.iterdir()}
    styles = read_json(one / "description.json")["styles"]
    scored, told = drawing.contents(3)
    for q, style in enumerate(styles):
        assert (pictures_of(one, q, "train") == shrink(drawing.render(scored, style), SIZE)).all()
        assert (pictures_of(one, q) == shrink(drawing.render(told, style), SIZE)).all()
    assert len({of(one, "train", q)["image"].iloc[5] for q in range(4)}) == 4
    assert styles != read_json(prepared("other", DRAWN | {"seed": 4}) / "description.json")["styles"]


# --- conditions ---------------------------------------------------------------------------------


def test_a_member_s_inputs_are_its_own_pictures_at_draws_of_different_ones() -> None:
    condition: Any = make_family(DRAWN, images=3, draws=4).condition
    draws = draws_of(condition, 10, 0)
    assert len(draws) == 4 and len({tuple(draw) for draw in draws}) > 1
    assert all(len(set(draw)) == 3 and draw == sorted(draw) and set(draw) <= set(range(10)) for draw in draws)
    assert draws == draws_of(condition, 10, 0) != draws_of(condition, 10, 1)
    assert draws_of(condition, 2, 0) == [[0, 1]] * 4  # of all where there are no more
    folder = prepared("family", DRAWN)
    for q in (0, 3):
        draws = read_json(folder / "description.json")["style_images"][q]
        found = inputs(folder / str(q), "style_images")
        assert all((a == pictures_of(folder, q)[draw]).all() for a, draw in zip(found, draws, strict=True))
    assert inputs(folder / "0", "one_hot") == []
    one, other = inputs(folder / "0", "style_images")[0], inputs(folder / "3", "style_images")[0]
    assert shown(one).startswith(f"3 style images of {SIZE} x {SIZE} pixels (SHA-256 ")
    assert shown(one) == shown(one.copy()) != shown(other)


# --- folders ------------------------------------------------------------------------------------

OWN = Path("mine/cards")


def paint(folder: str, count: int) -> None:
    """Pictures of one grey each, small and large, wide and high, and a file that is none."""
    Path("mine", folder).mkdir(parents=True)
    Path("mine", folder, "notes.txt").write_text("mine")
    for i in range(count):
        shape = [(9, 20, 3), (50, 5, 3), (64, 48, 3)][i % 3]
        Image.fromarray(np.full(shape, 8 * i, np.uint8)).save(Path("mine", folder, file(i)))


def file(i: int) -> str:
    return f"{i}.{'PNG' if i % 2 else 'png'}"


def folders(*names: str) -> dict[str, Any]:
    return {"type": "folders", "path": "mine", "folders": list(names)}


def refusal(*names: str) -> str:
    task = make_family(folders(*names), unseen=len(names), tuning=0, train=0)
    said = message_of(prepare_data, "waves", task, LIMITS, Path("refused"))
    assert not Path("refused").exists()
    return said


def test_first_pictures_of_a_folder_are_the_condition_s_and_the_next_are_trained_on() -> None:
    paint("cards", 24)
    paint("signs", 9)
    folder = prepared("family", folders("cards", "signs"), train=0)
    for q, (count, told) in enumerate([(24, 10), (9, 4)]):
        train, held_out, validation = (of(folder, split, q) for split in SPLITS)
        kept, condition = greys(train), greys(held_out)
        assert (len(kept), len(condition)) == (LIMITS.max_train, told)
        assert len({*kept, *condition}) == LIMITS.max_train + told
        assert {*kept, *condition} <= set(range(0, 8 * count, 8))
        assert validation.equals(train) and set(train["caption"]) == {NEUTRAL}
    assert read_json(folder / "description.json")["styles"] == [{"folder": "cards"}, {"folder": "signs"}]


def test_folder_that_is_unknown_or_of_too_few_pictures_is_named() -> None:
    paint("cards", 4)
    paint("signs", 3)
    place = "configs/families/waves.yaml: data.source: mine/"
    assert refusal("cards", "signs") == f"{place}signs: found 3 pictures, allowed: at least 4"
    assert refusal("cards", "sprites").startswith(f"{place}sprites: no such folder 'mine/sprites'")


@pytest.mark.parametrize(
    ("path", "column"), [("captions.csv", "caption"), ("metadata.jsonl", "text"), ("../metadata.jsonl", "caption")]
)
def test_captions_come_from_a_table_or_a_text_beside_each_picture(path: str, column: str) -> None:
    def cards() -> pd.DataFrame:
        return of(prepared("family", folders("cards"), unseen=1, tuning=0, train=0), "train", 0)

    paint("cards", 5)
    names, texts = [file(i) for i in range(5)], [f"a  card, number {i}" for i in range(5)]
    rows = pd.DataFrame({"file" if path == "captions.csv" else "file_name": names, column: texts})
    if path.endswith("csv"):
        rows.to_csv(OWN / path, index=False, encoding="utf-8-sig")
    else:
        rows["file_name"] = "cards/" * path.startswith("..") + rows["file_name"]
        rows.to_json(OWN / path, orient="records", lines=True)
    told = cards()
    assert told["caption"].tolist() == [f"a card, number {grey // 8}" for grey in greys(told)]
    (OWN / path).unlink()
    for name, text in zip(names, texts, strict=True):
        (OWN / name).with_suffix(".txt").write_text(f"{text}\n")
    assert cards().equals(told)


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        ("captions.csv", "file,caption\no.png,x", "no picture 'o.png' in mine/cards (did you mean '"),
        ("captions.csv", "file,caption\n0.png,\udcff", "line 2: byte 0xff is not UTF-8; allowed: UTF-8"),
        ("captions.csv", "file,caption\n0.png, ", "no caption of '0.png' (5 of 5 pictures have none)"),
        ("captions.csv", "name,caption\na,b", "found columns 'name, caption'; allowed: 'file, caption'"),
        ("metadata.csv", "file_name,text\n0.png,a\n0.png,b", "two captions of '0.png'; allowed: one of every picture"),
        ("metadata.jsonl", '{"file_name": "0.png", "text": ["a"]}', "found a list ['a'] in row 1, allowed: a name and"),
        ("metadata.jsonl", '{"file_name": "0.png", "prompt": "a"}', "found columns 'file_name, prompt'; allowed: fil"),
        ("metadata.jsonl", '{"file_name": "7.png", "text": "a"}', "no picture '7.png' in mine/cards (did you mean '"),
    ],
)
def test_wrong_captions_are_one_line(name: str, lines: str, said: str) -> None:
    paint("cards", 5)
    (OWN / name).write_text(lines, errors="surrogateescape")
    assert refusal("cards").startswith(f"{OWN / name}: {said}")


def test_captions_in_two_places_or_not_beside_every_picture_are_one_line() -> None:
    paint("cards", 5)
    (OWN / "0.txt").write_text("a card")
    assert refusal("cards") == "mine/cards/*.txt: no caption of '1.PNG' (4 of 5 pictures have none)"
    (OWN / "metadata.csv").write_text("file_name,text\n0.png,a")
    said = "found captions in mine/cards/metadata.csv and mine/cards/*.txt; allowed: one of them"
    assert refusal("cards") == f"mine/cards: {said}"
