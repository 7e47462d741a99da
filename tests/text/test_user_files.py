"""What people bring: values that are no text, labels in any type, one file for two splits; right, or one line."""

import json
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import datasets
import huggingface_hub
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from condpdiff.text.data import prepare
from condpdiff.text.sources import read_source
from condpdiff.text.task import TaskData
from tests.messages import message_of
from tests.text.test_data import ALL, REGRESSION, make_data, refusal

pytestmark = pytest.mark.usefixtures("in_a_folder")


def one_file(name: str, split: dict[str, Any] | None = None, source: Any = None, **changes: Any) -> TaskData:
    split = {"validation": 0.25} | (split or {})
    return make_data(source={"type": "files", "file": name, "split": split, **(source or {})}, **changes)


def jsonl(text: Callable[[int], Any], given: list[Any] | None = None, **changes: Any) -> TaskData:
    """A task over a file of twelve rows, or of as many as labels are given."""
    rows = [{"text": text(i), "label": label} for i, label in enumerate(given or ["bad", "good"] * 6)]
    Path("a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return one_file("a.jsonl", {"stratify": True}, **changes)


def of_rows(data: TaskData) -> dict[str, float]:
    """Text -> label, of both splits."""
    return {row.text: row.label for frame in prepare(data, "mine", ALL).values() for row in frame.itertuples()}


def chat(i: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"hi {i}"}, {"role": "assistant", "content": f"yo {i}"}]


# --- texts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "columns", "first"),
    [
        (lambda i: i, {}, "0"),
        (lambda i: ["a", str(i)], {"join": " "}, "a 0"),
        (lambda i: {"en": f"a {i}", "fr": "b"}, {"text": "text.en"}, "a 0"),
        (chat, {"text": "text.0.content"}, "hi 0"),
        (chat, {"text": "text.-1.content"}, "yo 0"),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_is_text_and_what_a_path_leads_to(text: Any, columns: dict[str, str], first: str, form: str) -> None:
    data = jsonl(text, columns={"text": "text", "label": "label"} | columns)
    if form == "parquet":
        pd.read_json("a.jsonl", lines=True).to_parquet("a.parquet")
        data = one_file("a.parquet", columns=data.columns.model_dump())
    found = of_rows(data)
    assert len(found) == 12 and first in found


def test_column_of_a_literal_name_wins_and_bytes_and_nullable_integers_are_read_but_no_dates() -> None:
    table = {"a.b": [f"t {i}" for i in range(20)], "a": [{"b": "x"}] * 20, "label": ["bad", "good"] * 10}
    table |= {"bytes": [f"ü {i}".encode() for i in range(20)], "n": pa.array([None, *range(19)])}
    table |= {"latin": [b"a\xff"] * 20, "date": pd.date_range("2020", periods=20)}
    pq.write_table(pa.table(table), "a.parquet")
    for name, expected in (("a.b", "t 0"), ("bytes", "ü 1"), ("n", "6")):
        assert expected in of_rows(one_file("a.parquet", columns={"text": name, "label": "label"}))
    for name in ("latin", "date"):
        said = refusal(one_file("a.parquet", columns={"text": name, "label": "label"}))
        assert "in row 1 of a.parquet, allowed: " in said


A, C = "in row 1 of a.jsonl", "in row 3 of a.jsonl"


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ({"en": "a"}, "text", f"found an object {{'en': 'a'}} {A}, allowed: a string or a number, or a path"),
        (["a", "b"], "text", f"found a list ['a', 'b'] {A}, allowed: a string or a number, or with"),
        (chat(0)[:1], "text", "allowed: a string or a number, or a path to one such as text.0.content"),
        (True, "text", f"found a boolean True {A}"),
        ({"en": "a"}, "text.de", "data.columns.text: 'text.de' leads nowhere in every row of a.jsonl"),
        ("a", "text.de", f"found str 'a' {A}, where 'de' leads on; allowed: an object"),
        ("a", "txt.de", "no column 'txt.de' in a.jsonl"),
    ],
)
def test_anything_else_is_refused_with_file_row_and_what_was_found(text: Any, name: str, said: str) -> None:
    assert said in refusal(jsonl(lambda _: text, columns={"text": name, "label": "label"}))


def test_rows_read_and_kept_are_told_and_texts_that_may_have_swallowed_some(capsys: pytest.CaptureFixture[str]) -> None:
    of_rows(jsonl(lambda i: f"t {i}" if i else "", ["bad", "good"] * 4))
    said = capsys.readouterr()
    assert said.err == "mine: train: dropped 1 rows without text\n"
    assert said.out == "mine: 6 rows of train read, 1 dropped, 5 kept; 2 rows of validation read, 0 dropped, 2 kept\n"
    of_rows(jsonl(lambda i: "a\n" * 9 if i == 1 else "b" * 900 if i == 2 else f"t {i}", ["bad", "good"] * 4))
    said = capsys.readouterr()
    assert "1 texts go over many lines (the first, in row 2 of a.jsonl, over 9)" in said.err
    assert "row 3 of a.jsonl is far longer than all others (900 characters, the next 18)" in said.err


# --- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "indices", "expected"),
    [
        ([0, 1, 2], None, {0, 1, 2}),
        ([0, 1], 0, {0, 1}),
        ([1, 2], 1, {0, 1}),
        (["2", 3.0, "4.0"], 2, {0, 1, 2}),
        ([False, True], 0, {0, 1}),
        (["a", "b"], 0, {0, 1}),
        ([1, 2], None, "found indices 1, 2 in a.jsonl, allowed: all of 0 to 2, or data.indices: 0 or 1, where they"),
        ([0, 1], None, "found indices 0, 1 in a.jsonl, allowed: all of 0 to 2, or data.indices: 0, where they start"),
        ([1, 2, 3], None, f"found '3' {C}; allowed: a, b, c, or their indices 0 to 2; or data.indices: 1"),
        ([0, 1, 5], None, f"found '5' {C}; allowed: a, b, c, or their indices 0 to 2"),
        ([0, 1, 5], 0, f"found '5' {C}; allowed: 0 to 2 (data.indices: 0)"),
        ([False, True], None, "found true and false in a.jsonl, allowed: a, b, c; or data.indices: 0, if false is 'a'"),
    ],
)
def test_numbers_are_indices_where_that_is_stated_or_no_class_is_missing(
    ids: list[Any], indices: int | None, expected: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = jsonl(lambda i: f"t {i}", ids * 4, labels=["a", "b", "c"], indices=indices)
    if isinstance(expected, str):
        assert expected in refusal(data)
        return
    found = of_rows(data)
    assert set(found.values()) == expected and [found[f"t {i}"] for i in range(len(ids))] == sorted(expected)
    assert ("data.labels: no row of c among the" in capsys.readouterr().err) == (len(ids) == 2)


def test_same_rows_mean_the_same_as_csv_and_as_jsonl_and_two_spellings_of_one_label_are_refused() -> None:
    truth = [i % 3 == 0 for i in range(12)]
    Path("a.csv").write_text("text,label\n" + "".join(f"t {i},{label}\n" for i, label in enumerate(truth)))
    for labels in (["true", "false"], ["False", "True"]):
        found = of_rows(jsonl(lambda i: f"t {i}", truth, labels=labels))
        assert found == of_rows(one_file("a.csv", labels=labels))
        assert found["t 0"] == [label.lower() for label in labels].index("true")
    assert "allowed: names that differ as rows write them" in refusal(one_file("a.csv", labels=["1", "1.0"]))


def fake_hub(monkeypatch: pytest.MonkeyPatch, names: list[str], **labels: list[int]) -> TaskData:
    """A data set with labels of each split."""

    def load_dataset(path: str, config: str | None, split: str) -> datasets.Dataset:
        assert (path, config) == ("some/set", "rte")
        features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
        rows = {"text": [f"{split} {i}" for i in range(len(labels[split]))], "label": labels[split]}
        return datasets.Dataset.from_dict(rows, features=datasets.Features(features))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    return make_data(source={"type": "hub", "dataset": "some/set", "config": "rte"})


def test_hub_labels_say_what_numbers_mean(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for names, expected in ((["Good", "Bad"], [1, 0]), (["bad", "good"], [0, 1]), (["neg", "pos"], [0, 1])):
        data = fake_hub(monkeypatch, names, train=[0, 1], validation=[1, 0])
        assert prepare(data, "mine", ALL)["train"]["label"].tolist() == expected
    data = fake_hub(monkeypatch, names, train=[0, 1], validation=[-1, -1])
    assert "found '-1' in row 1 of" in refusal(data)
    data = fake_hub(monkeypatch, ["neg", "neutral", "pos"], train=[0, 2, 0], validation=[2, 0])
    data = data.model_copy(update={"labels": ["a", "b", "c"]})
    assert prepare(data, "mine", ALL)["train"]["label"].tolist() == [0, 2, 0]  # neutral has no row, and keeps its place
    assert "classes by their order: neg is a, neutral is b, pos is c" in capsys.readouterr().err


@pytest.mark.parametrize("answers", [True, False])
def test_hub_that_fails_is_one_line_that_says_how_to_do_without(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    data, fails = fake_hub(monkeypatch, ["bad", "good"]), Mock(side_effect=ConnectionError("no route\nto host"))
    monkeypatch.setattr(*((datasets, "load_dataset") if answers else (huggingface_hub.HfApi, "dataset_info")), fails)
    said = "data.source: hub data set some/set (rte): cannot be loaded with datasets.load_dataset (no route to host)"
    assert f"{said}; set" in refusal(data) and "locally: `data.source: {type: files" in refusal(data)


@pytest.mark.usefixtures("no_hub")
def test_offline_the_hub_is_not_asked_and_a_full_disk_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = fake_hub(monkeypatch, ["bad", "good"])
    monkeypatch.setattr(datasets, "load_dataset", Mock(side_effect=OSError(28, "full")))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(OSError, match="full"):
        read_source(data, "t.yaml")


def test_decimal_commas_are_numbers_where_the_task_says_so() -> None:
    Path("a.csv").write_text("text;label\n" + "".join(f"t {i};{i % 2},5\n" for i in range(24)))
    data = one_file("a.csv", source={"separator": ";", "decimal": ","}, **REGRESSION)
    assert sorted(set(of_rows(data).values())) == [0.5, 1.5]
    for row, wrong in enumerate(("1.234", "1_0"), start=1):
        Path("a.csv").write_text("text;label\n" + "".join(f"t {i};{wrong if i == row else '1,5'}\n" for i in range(24)))
        assert f"found '{wrong}' in row" in refusal(data)
    said = refusal(one_file("a.csv", source={"separator": ";"}, **REGRESSION))
    assert "found '1,5' in row 1 of a.csv" in said and said.endswith("or data.source.decimal: ','")


# --- one file for two splits --------------------------------------------------------------------


def test_one_file_is_split_by_its_seed_by_class_and_by_group() -> None:
    lines = [f"t {i},{'bad' if i % 10 else 'good'},u{i // 5}" for i in range(100)]
    Path("a.csv").write_text("\n".join(["text,label,user", *lines]))

    def split(**how: Any) -> dict[str, pd.DataFrame]:
        return {name: rows.frame for name, rows in read_source(one_file("a.csv", how), "t.yaml").items()}

    assert {name: len(frame) for name, frame in split().items()} == {"train": 75, "validation": 25}
    assert split()["validation"].equals(split()["validation"]) and not split(seed=1)["train"].equals(split()["train"])
    assert Counter(split(validation=0.1, stratify=True)["validation"]["label"]) == {"bad": 9, "good": 1}
    for how in ({"group": "user"}, {"group": "user", "stratify": True}):
        found = split(**how)
        assert len(found["validation"]) == 25
        assert not set(found["train"]["user"]) & set(found["validation"]["user"])
    assert "data.source.split.group: no column 'usr' in a.csv (did you mean 'user'?)" in message_of(split, group="usr")
    Path("a.csv").write_text("\n".join(["text,label", *(line.rpartition(",")[0] for line in lines), "t,goood"]))
    assert "found 'goood' in row 101 of a.csv (did you mean 'good'?)" in refusal(one_file("a.csv"))  # of the whole file


@pytest.mark.parametrize(("there", "asked"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_file_is_found_in_whichever_normal_form_its_name_is(there: Any, asked: Any) -> None:
    path = Path(unicodedata.normalize(there, "données/tête.csv"))
    path.parent.mkdir()
    path.write_text("text,label\n" + "".join(f"t {i},{['bad', 'good'][i % 2]}\n" for i in range(12)))
    assert len(of_rows(one_file(unicodedata.normalize(asked, "données/tête.csv")))) == 12
