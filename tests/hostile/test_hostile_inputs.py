"""Hostile task files, params.yaml, tables, pictures and names: read, or refused in one line."""

import gzip
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from condpdiff.common.settings import parse
from condpdiff.common.task import SETTINGS, Data, read_task, save_sections
from condpdiff.packed.apply import read_texts
from condpdiff.style import task as style
from condpdiff.style.images import read_picture
from condpdiff.text import task as text
from condpdiff.text.data import prepare, read_labelled
from stages import check_params
from tests.clone import ROOT
from tests.hostile.mutations import CHANGES, ODD, Changes, cases, changed, damaged, is_read_or_refused
from tests.stand_ins import make_rows, make_task

FILES = [*sorted(ROOT.glob("configs/tasks/*.yaml")), *sorted(ROOT.glob("configs/families/*.yaml"))]
PARAMS = [ROOT / "configs/default.yaml", ROOT / "configs/style-many.yaml"]
GOOD = {path: yaml.safe_load(path.read_bytes()) for path in (*FILES, *PARAMS)}
ROWS = make_rows(24, 0).assign(label=["bad", "good"] * 12)
JSONL = ROWS.to_json(orient="records", lines=True).encode()
CSV = ROWS.to_csv(index=False).encode()
TABLES = {"a.csv": CSV, "a.jsonl": JSONL, "a.csv.gz": gzip.compress(CSV, mtime=0), "a.txt": CSV}
TABLES |= {"a.tsv": CSV.replace(b",", b"\t"), "a.parquet": ROWS.to_parquet()}
TASK = make_task().model_dump(mode="json", exclude_none=True)
DATA = TASK["data"]
OPTIONS = {"split": {"validation": 0.5, "stratify": True}, "separator": ",", "header": None, "encoding": None}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("tasks", "families"):
        shutil.copytree(ROOT / "configs" / folder, tmp_path / "work/configs" / folder)
    (tmp_path / "work/data").mkdir()
    (tmp_path / "outside").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def yaml_of(path: Path, changes: Changes) -> bytes:
    if sum(changes[0]) % 2:
        return damaged(path.read_bytes(), changes)
    return json.dumps(changed(GOOD[path], changes)).encode()  # which is YAML, too


@cases(500)
@given(st.sampled_from(FILES), CHANGES)
def test_a_task_file_is_read_or_refused(tmp_path: Path, path: Path, changes: Changes) -> None:
    Path("configs/tasks/mine.yaml").write_bytes(yaml_of(path, changes))
    shutil.rmtree(SETTINGS, ignore_errors=True)
    of = style if "size" in GOOD[path]["data"] else text
    with is_read_or_refused(tmp_path, "work/data"):
        read_task("mine", of.Task)
        save_sections(SETTINGS / "mine", "mine")
        of.load_task("mine")


@cases(200)
@given(st.sampled_from(PARAMS), CHANGES)
def test_params_yaml_is_read_or_refused(tmp_path: Path, path: Path, changes: Changes) -> None:
    Path("params.yaml").write_bytes(yaml_of(path, changes))
    with is_read_or_refused(tmp_path, "work/data"):
        check_params.main()


@cases(400)
@given(st.sampled_from(sorted(TABLES)), CHANGES, CHANGES, st.booleans())
def test_a_table_is_read_or_refused(tmp_path: Path, name: str, changes: Changes, more: Changes, odd: bool) -> None:
    row = json.dumps(changed({**ROWS.iloc[0]}, changes)).encode()
    Path(name).write_bytes(row + b"\n" + JSONL if odd and name == "a.jsonl" else damaged(TABLES[name], changes))
    data = {**DATA, "source": {"type": "files", "file": name, **OPTIONS}}
    with is_read_or_refused(tmp_path):
        data = parse(text.TaskData, changed(data, more) if odd else data, "t.yaml")
        prepare(data, "mine", Data(max_train=12, max_validation=12))
    for read in (read_texts, lambda path: read_labelled(path, make_task().data)):
        with is_read_or_refused(tmp_path):
            read(Path(name))


@cases(300)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"]), CHANGES)
def test_a_picture_is_read_or_refused(tmp_path: Path, form: str, changes: Changes) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)).save(buffer, form)
    Path("a").write_bytes(damaged(buffer.getvalue(), changes))
    with is_read_or_refused(tmp_path):
        assert read_picture(Path("a"), 16).shape == (16, 16, 3)


@pytest.mark.parametrize("name", [*(odd for odd in ODD if isinstance(odd, str)), "loop", "pipe", "/dev/null", "."])
def test_an_odd_name_is_read_or_refused(tmp_path: Path, name: str) -> None:
    Path("loop").symlink_to("loop"), os.mkfifo("pipe")
    task = {**TASK, "data": {**DATA, "source": {"type": "files", "train": name, "validation": name}}}
    styles = json.loads(json.dumps(GOOD[ROOT / "configs/families/own-styles.yaml"]))
    styles["data"]["source"] |= {"path": name}
    for model, content in ((text.Task, TASK | {"zoo": name}), (text.Task, task), (style.Task, styles)):
        Path("configs/tasks/mine.yaml").write_text(json.dumps(content))
        shutil.rmtree(SETTINGS, ignore_errors=True)
        with is_read_or_refused(tmp_path, "work/data"):
            read_task("mine", model)
            save_sections(SETTINGS / "mine", "mine")
    rows, limits = parse(text.TaskData, task["data"], "t.yaml"), Data(max_train=12, max_validation=12)
    for read in (
        *(lambda: read_task(name, text.Task), lambda: read_labelled(Path(name), rows), lambda: read_texts(Path(name))),
        *(lambda: read_picture(Path(name), 8), lambda: prepare(rows, "mine", limits)),
    ):
        with is_read_or_refused(tmp_path):
            read()
