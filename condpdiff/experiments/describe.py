"""What a run asks for, before it runs: the model and its K, tasks, and where inputs are.

Nothing is downloaded, and no weights are read. What would run, `dvc repro --dry` tells.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condpdiff.common.files import as_spelt, read_json
from condpdiff.common.packages import PACKAGES, cache_path, read_member
from condpdiff.common.settings import read_yaml
from condpdiff.common.task import Base
from condpdiff.diffusion.settings import UNDESCRIBED, Condition
from condpdiff.domain import module
from condpdiff.experiments.params import Params

MODELS = Path("configs/models")
CONFIG = {"text": "config.json", "style": "transformer/config.json"}  # where a model's folder has its architecture
ENCODERS = {"package": "package", "hub": "hub", "local-dir": "local", "local-file": "file"}
"""What `condition.model` begins with -> kind of `input_state`; a library downloads others."""
CACHED = "cached"


def describe(params: Params, tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that `condpdiff describe` tells, as JSON-ready data.
    Raises UserError: params.yaml asks for modules or layers that the base model does not have."""
    needs = module("data", params.domain).needs
    return {
        "domain": params.domain,
        "base": params.base.model_dump() | {"input": input_state(params.base.source, params.base.name)},
        "lora": lora(params),
        "zoo": {"max_checkpoints": params.collect.max_checkpoints, "N": params.normalize.n_checkpoints},
        "condition": params.condition.model_dump() | {"input": encoder_state(params.condition)},
        "tasks": [
            {
                "name": name,
                "metrics": task.metrics,
                "members": task.members.model_dump() if task.members else None,
                "steps": params.collect.steps or task.finetune.steps,
                "inputs": {f"{kind} {item}": input_state(kind, item) for kind, item in needs(task)},
            }
            for name, task in tasks.items()
        ],
    }


def lora(params: Params) -> dict[str, Any]:
    """Where the LoRA goes, and how many weights it has: in all, and generated; None where the model is not known."""
    from condpdiff.zoo.checkpoints import layout_of  # torch takes seconds

    collect, layers = params.collect, params.normalize.layers
    told = collect.model_dump(include={"rank", "alpha", "target_modules"}) | {"K": None, "K_generated": None}
    if (config := model_config(params.base, params.domain)) is None:
        return told
    models = module("models", params.domain)
    layout = layout_of(models.empty_peft_model(config, collect.rank, collect.alpha, collect.target_modules))
    chosen, _ = layout.select_layers(None if layers == "all" else layers)
    names = sorted({entry.module for entry in layout.entries})
    return told | {"target_modules": names, "K": layout.K, "K_generated": chosen.K}


def model_config(base: Base, domain: str) -> dict[str, Any] | None:
    """The base model's architecture: its own file's where it is here, else that of configs/models/, else None."""
    file, own = CONFIG[domain], None
    cached = base.source == "package" and input_state("package", base.name) == CACHED
    if cached and (folder := PACKAGES[base.name].model):
        return json.loads(read_member(base.name, f"{folder}/{file}"))
    if base.source == "local":
        own = Path(base.name) / file
    elif base.source == "hub":
        own = next(iter(_hub_folder("hub", base.name).glob(f"snapshots/*/{file}")), None)
    if own is not None and own.is_file():
        return read_json(own)
    published = MODELS / f"{Path(base.name).name.lower()}.yaml"
    found = read_yaml(published) if published.is_file() else {}
    return found.get("transformer", found) or None


def encoder_state(condition: Condition) -> str:
    """Where the condition encoder is; one-hot and learnable conditions need none."""
    if condition.kind in UNDESCRIBED:
        return "not needed"
    source, _, name = condition.model.partition(":")
    return input_state(ENCODERS[source], name) if source in ENCODERS else "its library downloads it"


def input_state(kind: str, name: str) -> str:
    """Where an input is: a package | trained (here) | hub, dataset (of the hub) | local, folder | file."""
    if kind == "trained":
        return f"by {MODELS / name}.yaml"
    if kind == "package":
        there = name in PACKAGES and (cache_path() / PACKAGES[name].archive).is_file()
        return CACHED if there else "not cached: pip will download it"
    if kind in ("hub", "dataset"):
        return "in the hub's cache" if _hub_folder(kind, name).is_dir() else "not cached: needs the hub"
    path = as_spelt(Path(name))
    return "there" if (path.is_file() if kind == "file" else path.is_dir()) else "not there"


def _hub_folder(kind: str, name: str) -> Path:
    """Where the hub's cache has a model (`hub`) or a `dataset`."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    return Path(HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model" if kind == "hub" else "dataset")
