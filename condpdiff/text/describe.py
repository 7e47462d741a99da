"""What `condpdiff describe` tells of text: the encoder's numbers, and where a task's rows come from."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from condpdiff.common.files import read_json
from condpdiff.common.packages import PACKAGES, read_member
from condpdiff.common.settings import read_yaml
from condpdiff.common.task import Base
from condpdiff.experiments.inputs import DATA, hub_folder, hub_input, is_cached, package_input, prepared_rows
from condpdiff.experiments.params import Params
from condpdiff.text.task import HubSource, PackageSource, Task

MODELS = Path("configs/models")


def model_config(base: Base) -> tuple[dict[str, Any] | None, str]:
    """The base model's architecture, and where its numbers come from: its own config.json, else configs/models/."""
    if base.source == "local" and (path := Path(base.name) / "config.json").is_file():
        return read_json(path), str(path)
    if base.source == "package" and is_cached(base.name) and PACKAGES[base.name].model:
        member = f"{PACKAGES[base.name].model}/config.json"
        return json.loads(read_member(base.name, member)), f"the package's {member}"
    if base.source == "hub" and (folder := hub_folder("models", base.name)).is_dir():
        for path in sorted(folder.glob("snapshots/*/config.json")):
            return read_json(path), str(path)
    path = MODELS / f"{Path(base.name).name.lower()}.yaml"
    if path.is_file():
        return read_yaml(path), str(path)
    return None, f"unknown until the model is here (or {path} gives its architecture)"


def shape(config: Mapping[str, Any]) -> str:
    """The architecture in a few words."""
    return f"{config['model_type']}, {config['num_hidden_layers']} layers, hidden {config['hidden_size']}"


def other_weights(base: Base) -> int:
    """Weights in data/base beside those of the model that is fine-tuned."""
    return 0


def batches(tasks: Mapping[str, Task]) -> list[tuple[int, int]]:
    """Rows and tokens of a fine-tuning step, for each task."""
    return [(task.finetune.batch_size, task.finetune.max_length) for task in tasks.values()]


def activations(config: Mapping[str, Any], batches: Iterable[tuple[int, int]]) -> int:
    """Bytes that the layers hold in the largest of some fine-tuning steps.

    2 s b h (34 + 5 a s / h) a layer in float32 (s tokens, b rows, h hidden, a heads; Korthikanti et al. 2022, whose
    count is for half precision).
    """
    h, a, layers = config["hidden_size"], config["num_attention_heads"], config["num_hidden_layers"]
    return max(int(2 * s * b * h * (34 + 5 * a * s / h)) * layers for b, s in batches)


def task_row(name: str, task: Task, params: Params) -> dict[str, Any]:
    """One task: its kind, metric, source and rows."""
    source = task.data.source
    if isinstance(source, PackageSource):
        where, state = f"package {source.package}", package_input(source.package)
    elif isinstance(source, HubSource):
        where = f"hub {source.dataset}" + (f" ({source.config})" if source.config else "")
        state = hub_input("datasets", source.dataset)
    else:
        where = f"files {source.train}, {source.validation}"
        absent = [file for file in (source.train, source.validation) if not Path(file).is_file()]
        state = f"no such file: {', '.join(absent)}" if absent else "there"
    return {
        "name": name,
        "kind": task.data.kind,
        "outputs": task.data.num_outputs,
        "metrics": task.metrics,
        "source": where,
        "input": state,
        "max_rows": [params.data.max_train, params.data.max_validation],
        "prepared_rows": prepared_rows(DATA / name, params),
        "steps": params.collect.steps or task.finetune.steps,
    }
