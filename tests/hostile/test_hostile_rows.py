"""Hostile tables, pictures and names: read, or refused in one line."""

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from condpdiff.common.settings import parse
from condpdiff.common.task import SETTINGS, Data, read_task, save_sections
from condpdiff.packed.apply import read_texts
from condpdiff.style import task as style
from condpdiff.style.images import read_picture
from condpdiff.text.data import prepare, read_labelled
from condpdiff.text.task import Task, TaskData
from tests.hostile.mutations import CHANGES, ODD, cases, changed, damaged, is_read_or_refused
from tests.stand_ins import make_rows, make_task

ROWS = make_rows(24, 0).assign(label=lambda frame: [("bad", "good")[int(label)] for label in frame["label"]])
PICTURE = Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))
LIMITS = Data(max_train=12, max_validation=12)


def parquet() -> bytes:
    buffer = io.BytesIO()
    ROWS.to_parquet(buffer)
    return buffer.getvalue()


def picture(form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, form, **options)
    return buffer.getvalue()


JSONL = "\n".join(json.dumps(row) for row in ROWS.to_dict("records")).encode()
CSV = ROWS.to_csv(index=False).encode()
TABLES = {
    "a.csv": CSV,
    "a.tsv": ROWS.to_csv(index=False, sep="\t").encode(),
    "a.jsonl": JSONL,
    "a.parquet": parquet(),
    "a.csv.gz": gzip.compress(CSV, mtime=0),
    "a.txt": "\n".join(ROWS["text"]).encode(),
}
FORMS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
PICTURES = {form: picture(form) for form in FORMS} | {"PROFILE": picture("PNG", icc_profile=b"acsp" * 50)}
SOURCE = {
    "type": "files",
    "file": "a",
    "split": {"validation": 0.5, "stratify": True},
    "separator": None,
    "header": None,
}
DATA = {"kind": "classification", "labels": ["bad", "good"], "columns": {"text": "text", "label": "label"}}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs/tasks").mkdir(parents=True)
    (tmp_path / "inputs").mkdir()
    monkeypatch.chdir(tmp_path)


@cases(500)
@given(st.sampled_from(sorted(TABLES)), CHANGES, CHANGES, st.booleans())
def test_a_table_is_read_or_refused(tmp_path: Path, name: str, changes: Any, more: Any, of_form: bool) -> None:
    content = json.dumps(changed(json.loads(JSONL.split(b"\n")[0]), changes)).encode() + b"\n" + JSONL
    Path(name).write_bytes(content if of_form and name == "a.jsonl" else damaged(TABLES[name], changes))
    data = {**DATA, "source": {**SOURCE, "file": name}}
    with is_read_or_refused(tmp_path):
        prepare(parse(TaskData, changed(data, more) if of_form else data, "t.yaml"), "mine", LIMITS)
    with is_read_or_refused(tmp_path):
        read_labelled(Path(name), make_task().data)
    with is_read_or_refused(tmp_path):
        read_texts(Path(name))


@cases(400)
@given(st.sampled_from(sorted(PICTURES)), CHANGES)
def test_a_picture_is_read_or_refused(tmp_path: Path, form: str, changes: Any) -> None:
    Path("a").write_bytes(damaged(PICTURES[form], changes))
    with is_read_or_refused(tmp_path):
        assert read_picture(Path("a"), 16).shape == (16, 16, 3)


@pytest.mark.parametrize("name", [odd for odd in ODD if isinstance(odd, str)] + ["loop", "fifo", "/dev/null", "."])
def test_an_odd_name_is_read_or_refused(tmp_path: Path, name: str) -> None:
    """Of a task, of a file, of folders, and of a zoo."""
    Path("loop").symlink_to("loop"), os.mkfifo("fifo")
    text, _ = make_task().model_dump(mode="json"), Path("configs/tasks/mine.yaml").write_text("")
    drawn = {"data": {"size": 8, "source": {"type": "folders", "path": name, "folders": [name]}}, "metrics": ["fid"]}
    drawn |= {"condition": {"description": ""}, "members": {"unseen": 0, "tuning": 0, "train": 1}}
    files = {"type": "files", "train": name, "validation": name}
    for model, task in (
        (Task, text | {"zoo": name}),
        (Task, text | {"data": text["data"] | {"source": files}}),
        (style.Task, drawn | {"finetune": {"steps": 1, "lr": 1}}),
    ):
        Path("configs/tasks/mine.yaml").write_text(json.dumps(task))
        with is_read_or_refused(tmp_path, "data"):
            read_task("mine", model)
            save_sections(SETTINGS / str(len(list(tmp_path.glob("data/settings/*")))), "mine")
    for read in (
        lambda: read_task(name, Task),
        lambda: read_labelled(Path(name), make_task().data),
        lambda: read_texts(Path(name)),
        lambda: read_picture(Path(name), 8),
        lambda: prepare(parse(TaskData, DATA | {"source": files}, "t.yaml"), "mine", LIMITS),
    ):
        with is_read_or_refused(tmp_path, "data"):
            read()
