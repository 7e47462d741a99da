"""A run of one task on a random stand-in, as check-params, prepare-data and prepare-base leave it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from condpdiff.common.pretrained import save_source
from tests.adapters.stand_ins_adapters import ALPHA, BASE, RANK
from tests.stand_ins import make_task, save_base
from tests.style.stand_ins_style import make_family, save_style_base

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "data": {"held_out": 24},
    "collect": {"rank": RANK, "alpha": ALPHA, "max_checkpoints": 3},
    "performance": {"rows": 8},
    "normalize": {"n_checkpoints": 3},
    "eval": {"select_rows": 16},
}


@pytest.fixture
def text_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder is that of a run of the task `films`."""
    monkeypatch.chdir(tmp_path)
    save_base("bert", BASE)
    save_run("text", "films", make_task())


@pytest.fixture
def style_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder is that of a run of the style `waves`."""
    monkeypatch.chdir(tmp_path)
    save_style_base(BASE)
    save_run("style", "waves", make_family({"type": "drawn", "renderer": "grading"}, 0, 0, 4))


def save_run(domain: str, name: str, task: Any) -> None:
    params = yaml.safe_load((ROOT / "configs/default.yaml").read_text(encoding="utf-8"))
    for key, values in SMALL.items():
        params[key] |= values
    params |= {"domain": domain, "tasks": [name], "base": {"source": "local", "name": "models/tiny"}}
    if domain == "style":
        params["condition"] |= {"encoder": "resnet18", "kind": "style_images"}
        params["ldm"]["performance"], params["sample"]["performance"], params["probe"]["samples"] = "none", None, 0
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    file = Path("configs/families" if domain == "style" else "configs/tasks", f"{name}.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(task.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    save_source(BASE, "local", "models/tiny", "data/base")
    shutil.copytree(BASE, "models/tiny", dirs_exist_ok=True)
    Path("inputs").mkdir(exist_ok=True)
