"""A run of one task on a random stand-in, as check-params, prepare-data and prepare-base leave it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from condpdiff.common.pretrained import save_source
from tests.adapters.stand_ins_adapters import ALPHA, RANK
from tests.stand_ins import make_task, save_base, save_rows
from tests.style.stand_ins_style import make_style_task, save_style_base

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "data": {"held_out": 24},
    "collect": {"rank": RANK, "alpha": ALPHA, "max_checkpoints": 3},
    "performance": {"rows": 8},
    "normalize": {"n_checkpoints": 3},
    "eval": {"select_rows": 16},
}


@pytest.fixture
def text_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a run of the task `films`."""
    monkeypatch.chdir(tmp_path)
    save_params("text", "films", make_task().model_dump(mode="json", exclude_none=True))
    save_source(save_base("bert", Path("data/base")), "local", "models/tiny", "data/base")
    shutil.copytree("data/base", "models/tiny")
    save_rows(Path("data/tasks/films"))
    return tmp_path


@pytest.fixture
def style_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a run of the style `waves`."""
    monkeypatch.chdir(tmp_path)
    save_params("style", "waves", make_style_task().model_dump(mode="json", exclude_none=True))
    save_source(save_style_base(Path("data/base")), "local", "models/tiny", "data/base")
    shutil.copytree("data/base", "models/tiny")
    return tmp_path


def save_params(domain: str, name: str, task: dict[str, Any]) -> None:
    params = yaml.safe_load((ROOT / "configs/default.yaml").read_text(encoding="utf-8"))
    for key, values in SMALL.items():
        params[key] |= values
    params |= {"domain": domain, "tasks": [name], "base": {"source": "local", "name": "models/tiny"}}
    if domain == "style":
        params["condition"] |= {"encoder": "resnet18", "kind": "one_hot"}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    file = Path("configs/tasks", f"{name}.yaml")
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(task), encoding="utf-8")
    Path("inputs").mkdir()
