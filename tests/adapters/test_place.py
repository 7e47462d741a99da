"""finetune-collect over an imported zoo: the last states, and only of a zoo that is the run's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from condpdiff.adapters.importing import import_zoo
from condpdiff.adapters.place import place
from condpdiff.common.files import read_config, read_json, write_json
from condpdiff.common.task import SETTINGS, save_sections
from condpdiff.experiments.params import fingerprint, load_params
from condpdiff.text.task import load_task
from condpdiff.zoo.checkpoints import THETA, load_zoo
from tests.adapters.stand_ins_adapters import ALPHA, RANK, save_adapters
from tests.messages import message_of
from tests.stand_ins import make_collect

ROOT = Path(__file__).parents[2]
FILE = Path("configs/tasks/films.yaml")


def set_zoo(zoo: str | None) -> None:
    """In the task's file, and in what check-params makes of it."""
    FILE.write_text(yaml.safe_dump(yaml.safe_load(FILE.read_text()) | {"zoo": zoo}))
    shutil.rmtree(SETTINGS, ignore_errors=True)
    save_sections(SETTINGS / "films", "films")


def refusal(**collect: Any) -> str:
    task, base, out = load_task("films"), Path("data/base"), Path("data/zoo/films")
    settings = make_collect(**{"rank": RANK, "alpha": ALPHA, "max_checkpoints": 3} | collect)
    line = message_of(place, "films", task, settings, base, out)
    assert not list(Path("data").glob("zoo/*"))
    return line


@pytest.fixture
def imported(text_run: None) -> None:
    """A run whose task has a zoo of four adapters."""
    save_adapters(Path("mine"), 4)
    import_zoo(Path("mine"), "films", False, print)
    set_zoo("inputs/films")


def test_the_zoo_is_the_last_states_of_the_imported_one(imported: None) -> None:
    command, path = [sys.executable, "-m", "stages.finetune_collect", "films"], {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, text=True, capture_output=True, check=False, env=os.environ | path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "films: the last 3 of 4 checkpoints of inputs/films, in place of fine-tuning\n"
    folder, own = Path("data/zoo/films"), load_zoo(Path("inputs/films"))
    zoo = load_zoo(folder)
    assert torch.equal(zoo.theta, own.theta[-3:]) and zoo.layout == own.layout and zoo.config == own.config
    assert all(torch.equal(zoo.head[key], own.head[key]) for key in own.head)
    assert list(pd.read_csv(folder / "loss.csv")) == ["task", "step", "loss"]
    assert list(pd.read_csv(folder / "validation.csv")) == ["task", "step", "score"]
    assert read_config(folder / THETA)["task"] == "films"


def test_a_zoo_of_another_run_is_one_line_and_leaves_nothing(imported: None) -> None:
    for changes, says in (
        ({"max_checkpoints": 5}, "params.yaml: collect.max_checkpoints: found 5, allowed: at most 4, as in inputs"),
        ({"alpha": 8.0}, "configs/tasks/films.yaml: zoo: inputs/films: alpha: found 4.0, allowed: 8.0 (params.yaml: "),
        ({"target_modules": ["query"]}, "target_modules: found ['attention.output.dense', 'key', 'query', 'value'],"),
        ({"factors": "B"}, "params.yaml: collect.factors: found 'B', allowed: both with an imported zoo"),
    ):
        assert says in refusal(**changes)
    write_json(Path("data/base/config.json"), read_json(Path("data/base/config.json")) | {"num_hidden_layers": 1})
    assert "inputs/films: layout.json: differs (params.yaml: collect, base); run `condpdiff import` again" in refusal()


def test_settings_hold_the_zoo_and_a_hash_of_its_files_and_without_one_nothing(imported: None) -> None:
    path = SETTINGS / "films/finetune.json"
    first, files = read_json(path), {file.name for file in path.parent.iterdir()}
    assert first["zoo"] == "inputs/films" and first["lr"] and load_task("films").zoo == "inputs/films"
    (Path("inputs/films") / "adapters.json").write_text("[]")
    set_zoo("inputs/films")
    assert {key for key, value in read_json(path).items() if first[key] != value} == {"sha256"}
    set_zoo(None)
    assert read_json(path).keys() == first.keys() - {"zoo", "sha256"} and load_task("films").zoo is None
    assert files == {f"{name}.json" for name in ("condition", "data", "finetune", "members", "metrics")}
    for zoo in ("inputs/none", "elsewhere", "inputs"):
        line = message_of(set_zoo, zoo)
        assert line.startswith(f"configs/tasks/films.yaml: zoo: found '{zoo}', allowed: a folder inputs/NAME that ")


def test_a_task_without_a_zoo_keeps_its_fingerprint(text_run: None) -> None:
    params, tasks = load_params()
    assert "zoo" not in tasks["films"].model_dump(mode="json")
    own = tasks["films"].model_copy(update={"zoo": "inputs/films"})
    assert fingerprint(params, tasks) != fingerprint(params, {"films": own})
