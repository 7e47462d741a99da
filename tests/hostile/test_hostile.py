"""Hostile settings, rows, pictures, names, zoos, adapters and generators: read, or refused in one line."""

import gzip
import io
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from condpdiff.adapters.formats import Adapter, read_adapter, write_diffusers, write_kohya
from condpdiff.adapters.importing import checkpoints
from condpdiff.common.files import write_tensors
from condpdiff.common.settings import parse
from condpdiff.common.task import SETTINGS, Data, read_task, save_sections
from condpdiff.domain import module
from condpdiff.packed.app import nearest_checkpoint
from condpdiff.packed.apply import apply, read_texts, rows_of
from condpdiff.packed.generator import Generator
from condpdiff.style.images import read_picture
from condpdiff.text.data import prepare, read_labelled
from condpdiff.text.task import Task, TaskData
from condpdiff.zoo.adapters import write_adapter
from condpdiff.zoo.checkpoints import HEAD, THETA, load_zoo, unflatten
from condpdiff.zoo.placed import PREFIX
from stages import check_params
from tests.clone import ROOT
from tests.hostile.mutations import CHANGES, HARMS, ODD, Changes, cases, changed, damaged, is_read_or_refused
from tests.packed.tiny_generators import text_generator
from tests.stand_ins import make_rows, make_task, make_zoo

RUNS = {domain: ROOT / f"configs/{name}.yaml" for domain, name in (("text", "default"), ("style", "style-many"))}
FILES = [*sorted(ROOT.glob("configs/tasks/*.yaml")), *sorted(ROOT.glob("configs/families/*.yaml")), *RUNS.values()]
GOOD = {path: yaml.safe_load(path.read_bytes()) for path in FILES}
TASK = make_task().model_dump(mode="json", exclude_none=True)
ROWS = make_rows(24, 0).assign(label=["bad", "good"] * 12)
CSV = ROWS.to_csv(index=False).encode()
TABLES = {"a.csv": CSV, "a.csv.gz": gzip.compress(CSV, mtime=0), "a.txt": CSV, "a.tsv": CSV.replace(b",", b"\t")}
TABLES |= {"a.parquet": ROWS.to_parquet(), "a.jsonl": ROWS.to_json(orient="records", lines=True).encode()}
OPTIONS = {"split": {"validation": 0.5, "stratify": True}, "separator": ",", "header": None, "encoding": None}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "configs", tmp_path / "work/configs")
    (tmp_path / "work/data").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@cases(700)
@given(st.sampled_from(FILES), CHANGES)
def test_params_yaml_and_task_files_are_read_or_refused(work: Path, path: Path, changes: Changes) -> None:
    odd = (
        damaged(path.read_bytes(), changes)
        if sum(changes[0]) % 2
        else json.dumps(changed(GOOD[path], changes)).encode()
    )
    domain = "style" if "size" in GOOD[path]["data"] or path == RUNS["style"] else "text"
    run = GOOD[RUNS[domain]] | {"tasks": ["mine"]}
    Path("params.yaml").write_bytes(odd if path in RUNS.values() else json.dumps(run).encode())
    Path("configs/tasks/mine.yaml").write_bytes(odd)
    with is_read_or_refused(work, "work/data"):
        if path not in RUNS.values():
            read_task("mine", module("task", domain).Task)
        check_params.main()


@cases(400)
@given(st.sampled_from(sorted(TABLES)), CHANGES, CHANGES, st.booleans())
def test_a_table_is_read_or_refused(work: Path, name: str, changes: Changes, more: Changes, odd: bool) -> None:
    rows = json.dumps(changed(ROWS.iloc[0].to_dict(), changes)).encode() + b"\n" + TABLES["a.jsonl"]
    Path(name).write_bytes(rows if odd and name == "a.jsonl" else damaged(TABLES[name], changes))
    data = {**TASK["data"], "source": {"type": "files", "file": name, **OPTIONS}}
    with is_read_or_refused(work):
        prepare(
            parse(TaskData, changed(data, more) if odd else data, "t.yaml"),
            "mine",
            Data(max_train=12, max_validation=12),
        )
    with is_read_or_refused(work):
        read_labelled(Path(name), make_task().data), read_texts(Path(name))


@cases(300)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"]), CHANGES)
def test_a_picture_is_read_or_refused(work: Path, form: str, changes: Changes) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)).save(buffer, form)
    Path("a").write_bytes(damaged(buffer.getvalue(), changes))
    with is_read_or_refused(work):
        assert read_picture(Path("a"), 16).shape == (16, 16, 3)


@pytest.mark.parametrize("name", [*(odd for odd in ODD if isinstance(odd, str)), "loop", "pipe", "/dev/null", "."])
def test_an_odd_name_is_read_or_refused(work: Path, name: str) -> None:
    Path("loop").symlink_to("loop"), os.mkfifo("pipe")
    own = {**TASK["data"], "source": {"type": "files", "train": name, "validation": name}}
    styles = GOOD[ROOT / "configs/families/own-styles.yaml"]
    styles |= {"data": styles["data"] | {"source": styles["data"]["source"] | {"path": name}}}
    for domain, content in (("text", TASK | {"zoo": name}), ("text", TASK | {"data": own}), ("style", styles)):
        Path("configs/tasks/mine.yaml").write_text(json.dumps(content))
        shutil.rmtree(SETTINGS, ignore_errors=True)
        with is_read_or_refused(work, "work/data"):
            read_task("mine", module("task", domain).Task)
            save_sections(SETTINGS / "mine", "mine")
    rows = parse(TaskData, own, "t.yaml")
    prepared = partial(prepare, rows, "mine", Data(max_train=12, max_validation=12))
    opened = (partial(read_picture, Path(name), 8), partial(read_labelled, Path(name), rows), prepared)
    for read in (*opened, partial(read_texts, Path(name)), partial(read_task, name, Task)):
        with is_read_or_refused(work):
            read()


@pytest.fixture(scope="module")
def good(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a zoo, a generator, and adapters of three formats."""
    folder, (zoo, _) = tmp_path_factory.mktemp("good"), make_zoo(base("bert"))
    for name in ("zoo", "peft", "diffusers", "kohya"):
        (folder / name).mkdir()
    write_tensors(folder / "zoo" / THETA, {"theta": zoo.theta}, zoo.config)
    write_tensors(folder / "zoo" / HEAD, zoo.head)
    zoo.layout.save(folder / "zoo")
    tensors = {**unflatten(zoo.theta[0], zoo.layout), **zoo.head}
    write_adapter(folder / "peft", tensors, zoo.config, str(base("bert")), "", ["bad", "good"])
    of_style = {f"{PREFIX}transformer_blocks.0.attn1.to_q.lora_{m}.weight": torch.ones(2, 2) for m in "AB"}
    write_diffusers(
        adapter := Adapter(of_style, {"rank": 2, "alpha": 4.0, "target_modules": ["to_q"]}), folder / "diffusers"
    )
    write_kohya(adapter, folder / "kohya")
    (folder / "list.jsonl").write_text(json.dumps({"id": "a", "description": "b", "path": "peft"}) + "\n")
    text_generator(folder / "generator", base("bert"))
    return folder


def imported(source: Path) -> None:
    for each in checkpoints(source, 1.0):
        if isinstance(each.where, Path):
            read_adapter(each.where)


def generated(folder: Path) -> None:
    made_by = Generator.from_pretrained(folder)
    lora = made_by.generate(made_by.nearest(made_by.condition("films")[0], made_by.trained))[0]
    nearest_checkpoint(made_by, lora)
    lora.save_pretrained(folder.parent / "out")


@pytest.mark.parametrize(
    ("name", "read"),
    [("zoo", load_zoo), ("zoo", imported), *((name, read_adapter) for name in ("peft", "diffusers", "kohya"))]
    + [
        ("list.jsonl", imported),
        ("peft", lambda path: apply(path, rows_of(["good film"]))),
        ("generator", generated),
        ("generator/config.json", generated),
    ],
)
@cases(120)
@given(st.integers(0, 99), CHANGES)
def test_weights_are_read_or_refused(good: Path, name: str, read: Any, index: int, changes: Changes) -> None:
    files = sorted(path for path in (good / name).rglob("*") if path.is_file()) or [good / name]
    path = files[index % len(files)]
    content = path.read_bytes()
    path.write_bytes(HARMS.get(path.suffix, damaged)(content, changes))
    try:
        with is_read_or_refused(good):
            read(path.parent if path.name == "config.json" else good / name)
    finally:
        path.write_bytes(content)
        shutil.rmtree(good / "out", ignore_errors=True)
