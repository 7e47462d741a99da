"""Hostile task files and params.yaml: read, or refused in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from condpdiff.common.task import SETTINGS, read_task, save_sections
from condpdiff.style import task as style
from condpdiff.text import task as text
from stages import check_params
from tests.clone import ROOT
from tests.hostile.mutations import CHANGES, cases, changed, damaged, is_read_or_refused

FILES = [*sorted((ROOT / "configs/tasks").glob("*.yaml")), *sorted((ROOT / "configs/families").glob("*.yaml"))]
PARAMS = [ROOT / "configs/default.yaml", ROOT / "configs/style-many.yaml"]
GOOD = {path: yaml.safe_load(path.read_bytes()) for path in (*FILES, *PARAMS)}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("tasks", "families"):
        shutil.copytree(ROOT / "configs" / folder, tmp_path / "work/configs" / folder)
    for folder in ("outside", "work/data", "work/inputs/zoo"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "outside/file").write_text("stays")
    monkeypatch.chdir(tmp_path / "work")


def yaml_of(path: Path, changes: list[tuple[int, int, int]]) -> bytes:
    if sum(changes[0]) % 2:
        return damaged(path.read_bytes(), changes)
    return json.dumps(changed(GOOD[path], changes)).encode()  # which is YAML, too


@cases(700)
@given(st.sampled_from(FILES), CHANGES)
def test_a_task_file_is_read_or_refused(tmp_path: Path, path: Path, changes: Any) -> None:
    Path("configs/tasks/mine.yaml").write_bytes(yaml_of(path, changes))
    shutil.rmtree(SETTINGS, ignore_errors=True)
    of = style if "size" in GOOD[path]["data"] else text
    with is_read_or_refused(tmp_path, "work/data"):
        read_task("mine", of.Task)
        save_sections(SETTINGS / "mine", "mine")
        of.load_task("mine")


@cases(300)
@given(st.sampled_from(PARAMS), CHANGES)
def test_params_yaml_is_read_or_refused(tmp_path: Path, path: Path, changes: Any) -> None:
    Path("params.yaml").write_bytes(yaml_of(path, changes))
    with is_read_or_refused(tmp_path, "work/data"):
        check_params.main()
