"""Write generated weights as a PEFT adapter: `PeftModel.from_pretrained(base, folder)` loads it."""

from pathlib import Path
from typing import Any

from peft import LoraConfig
from torch import Tensor

from condpdiff.common.files import write_json, write_tensors
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.layout import unflatten


def export_adapter(
    folder: Path, theta: Tensor, zoo: Zoo, base: str, shown_as: str, task_type: str | None, card: str
) -> None:
    """`write_adapter` of theta [K] with the head, and as the config, of its zoo."""
    tensors, about = unflatten(theta, zoo.layout) | zoo.head, zoo.config | {"task_type": task_type}
    write_adapter(folder, tensors, about, base, shown_as, card)


def write_adapter(
    folder: Path, tensors: dict[str, Tensor], about: dict[str, Any], base: str, shown_as: str, card: str
) -> None:
    """Write `adapter_model.safetensors`, `adapter_config.json` and a model card.

    Args:
        tensors: by PEFT key.
        about: rank, alpha, target_modules, modules_to_save, PEFT's task_type, and what else the card names.
        base: what `from_pretrained` takes for the base model.
        shown_as: the folder's final path, for the card.
        card: the model card, with the names of `about`, base and folder in braces.
    """
    write_tensors(folder / "adapter_model.safetensors", tensors)
    config = LoraConfig(
        task_type=about["task_type"],
        base_model_name_or_path=base,
        inference_mode=True,
        r=about["rank"],
        lora_alpha=about["alpha"],
        target_modules=about["target_modules"],
        modules_to_save=about["modules_to_save"] or None,
    )
    write_json(folder / "adapter_config.json", _sorted_sets(config.to_dict()))
    text = card.format(base=base, folder=shown_as, **about)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _sorted_sets(value: Any) -> Any:
    """Sets have no order; as sorted lists the same adapter gives the same bytes."""
    if isinstance(value, dict):
        return {key: _sorted_sets(item) for key, item in value.items()}
    if isinstance(value, set):
        return sorted(value)
    return value
