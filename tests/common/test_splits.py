"""Splits: no row in two of them, the same ones each time, and more rows begin as fewer."""

import json
from pathlib import Path

import pandas as pd
import pytest

from condpdiff.common.splits import hold_out, save_splits, subsample
from condpdiff.common.task import Data
from tests.messages import message_of


def keys(frame: pd.DataFrame) -> pd.Series:
    return frame["text"]


def rows(words: list[str] | range) -> pd.DataFrame:
    return pd.DataFrame({"text": [str(word) for word in words]})


def limits(**changes: int) -> Data:
    return Data(**{"max_train": 1000, "max_validation": 1000} | changes)


def drawn(train: range = range(20), validation: range = range(50, 60), **changes: int) -> dict[str, list[str]]:
    found = subsample({"train": rows(train), "validation": rows(validation)}, limits(**changes), keys, "mine")
    return {split: list(frame["text"]) for split, frame in found.items()}


def test_train_loses_what_validation_has(capsys: pytest.CaptureFixture[str]) -> None:
    found = drawn(range(20), range(18, 30))
    assert found == {"train": [str(i) for i in range(18)], "validation": [str(i) for i in range(18, 30)]}
    assert capsys.readouterr().err == "mine: dropped 2 of train that validation has, too\n"


def test_subsample_is_seeded_keeps_order_and_grows_with_the_limit() -> None:
    few, more = (drawn(max_train=n)["train"] for n in (10, 15))
    assert len(few) == 10 and few == sorted(few, key=int) == drawn(max_train=10)["train"]
    assert set(few) < set(more)
    assert drawn(max_train=10, seed=1)["train"] != few
    assert len(drawn(seed=1)["train"]) == 20 and len(drawn(max_validation=3)["validation"]) == 3


def test_held_out_rows_are_taken_out_of_train_and_grow_with_their_number() -> None:
    train = rows(range(20))
    few, more = (hold_out(train, limits(held_out=n), keys, "here") for n in (4, 7))
    assert len(few["held_out"]) == 4
    assert sorted([*few["train"]["text"], *few["held_out"]["text"]]) == sorted(train["text"])
    assert few["train"]["text"].tolist() == sorted(few["train"]["text"], key=int)  # in the old order
    assert more["held_out"]["text"].tolist()[:4] == few["held_out"]["text"].tolist()
    assert hold_out(train, limits(), keys, "here")["train"].equals(train)
    twice = hold_out(rows(["twice"] * 10 + [str(i) for i in range(10)]), limits(held_out=9), keys, "here")
    assert len(twice["held_out"]) == 9 and not set(twice["train"]["text"]) & set(twice["held_out"]["text"])
    expected = "params.yaml: data.held_out: found 11, allowed: at most half of the 20 training rows of here"
    assert message_of(hold_out, train, limits(held_out=11), keys, "here") == expected


def test_splits_are_written_with_their_description(tmp_path: Path) -> None:
    for name in ("one", "again"):
        save_splits(tmp_path / name, {"train": rows(range(3)), "held_out": rows(range(2))}, {"task_info": ["a"]})
    names = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert names == ["description.json", "held_out.parquet", "train.parquet"]
    assert pd.read_parquet(tmp_path / "one/train.parquet").equals(rows(range(3)))
    assert json.loads((tmp_path / "one/description.json").read_text()) == {"task_info": ["a"]}
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
