"""Write weights as a PEFT adapter: `PeftModel.from_pretrained(base, folder)` loads it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from condpdiff.common.files import write_json, write_tensors
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.layout import unflatten

LABELS = "labels.json"


def export_adapter(
    folder: Path, theta: Tensor, zoo: Zoo, base: str, shown_as: str, task_type: str | None, card: str
) -> None:
    """Write a vector theta [K] of a zoo with the zoo's head, as `write_adapter`.

    Args:
        shown_as: the folder's final path, for the card.
        card: the model card, with the names of the zoo's config, base and folder in braces.
    """
    text = card.format(base=base, folder=shown_as, **zoo.config)
    write_adapter(folder, {**unflatten(theta, zoo.layout), **zoo.head}, zoo.config, base, task_type, text)


def write_adapter(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    base: str,
    task_type: str | None,
    card: str,
    labels: Sequence[str] | None = None,
) -> None:
    """Write `adapter_model.safetensors`, `adapter_config.json`, a model card, and `labels.json` where there are labels.

    The configuration is written without PEFT, whose import takes seconds; what it leaves out has PEFT's defaults.

    Args:
        tensors: by PEFT key.
        config: rank, alpha, target_modules, modules_to_save.
        base: what `from_pretrained` takes for the base model.
        task_type: PEFT's, where it has one for such models.
        card: README.md.
        labels: class names in the order of their indices.
    """
    write_tensors(folder / "adapter_model.safetensors", tensors)
    lora = {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": config["rank"],
        "lora_alpha": config["alpha"],
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(config["target_modules"]),
        "modules_to_save": config["modules_to_save"] or None,
    }
    write_json(folder / "adapter_config.json", lora)
    if labels:
        write_json(folder / LABELS, {str(i): label for i, label in enumerate(labels)})
    (folder / "README.md").write_text(card, encoding="utf-8")
