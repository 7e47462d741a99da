"""A run of one task on a random stand-in, and adapters as others make them: plain PEFT, diffusers."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers.loaders.peft import PeftAdapterMixin
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

from condpdiff.common.files import write_tensors
from condpdiff.common.pretrained import save_source
from condpdiff.common.task import SETTINGS, save_sections
from condpdiff.style.models import load_transformer
from condpdiff.zoo.checkpoints import Zoo, save_zoo
from tests.stand_ins import make_task, save_base
from tests.style.stand_ins_style import make_family, save_style_base

BASE, ROOT = Path("data/base"), Path(__file__).parents[2]
RANK, ALPHA = 2, 4.0
PROJECTIONS = ["query", "key", "value", "attention.output.dense"]
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
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
    save_run("style", "waves", make_family({"type": "drawn", "renderer": "grading"}, train=4))


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


def peft_model(**config: Any) -> PeftModel:
    """A classifier on the run's base with a LoRA, as PEFT's own documentation makes one."""
    torch.manual_seed(0)  # of the head
    base = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=2)
    settings = {"task_type": "SEQ_CLS", "r": RANK, "lora_alpha": ALPHA, "target_modules": PROJECTIONS} | config
    return get_peft_model(base, LoraConfig(**settings))


def same(found: Any, expected: Any) -> None:
    """Mappings of the same keys and values."""
    torch.testing.assert_close(dict(found), dict(expected), rtol=0, atol=0)


def randomise(model: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def save_adapters(folder: Path, count: int = 4, names: str = "run-{}", **config: Any) -> list[Any]:
    """Folders of random adapters, written by PEFT; their models."""
    model, found = peft_model(**config), []
    for i in range(1, count + 1):
        randomise(model, i).save_pretrained(folder / names.format(i))
        found.append(copy.deepcopy(model))
    return found


def write_run(name: str, zoo: Zoo) -> Zoo:
    """A run's zoo, settings and samples: the samples are the zoo's states, negated."""
    save_zoo(Path("data/zoo", name), replace(zoo, config=zoo.config | {"task": name}))
    Path("data/samples").mkdir()
    write_tensors(Path(f"data/samples/{name}.safetensors"), {"theta": -zoo.theta})
    save_sections(SETTINGS / name, name)
    return zoo


def style_transformer(seed: int) -> Any:
    """The run's transformer with a LoRA by diffusers' own mixin, which its pipelines with LoRAs use."""
    model: Any = load_transformer(BASE)
    model.__class__ = type("WithLora", (PeftAdapterMixin, type(model)), {})
    model.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=ATTENTION))
    return randomise(model, seed)
