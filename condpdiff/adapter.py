"""Write generated weights as a PEFT adapter: `PeftModel.from_pretrained(base, folder)` loads it."""

from pathlib import Path
from typing import Any

from peft import LoraConfig
from torch import Tensor

from condpdiff.files import write_json, write_tensors
from condpdiff.layout import unflatten
from condpdiff.zoo import Zoo

_CARD = """---
base_model: {base}
library_name: peft
tags: [lora, condpdiff]
---
# {task}: a generated LoRA

Sampled by Cond P-Diff for the task `{task}` (rank {rank}, alpha {alpha:g}); the classification head is the task's own,
trained before the checkpoints were collected.

```python
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base = AutoModelForSequenceClassification.from_pretrained("{base}", num_labels={num_outputs})
model = PeftModel.from_pretrained(base, "{folder}").eval()
tokenizer = AutoTokenizer.from_pretrained("{base}")
```
"""


def export_adapter(folder: Path, theta: Tensor, zoo: Zoo, base: str, shown_as: str) -> None:
    """Write `adapter_model.safetensors`, `adapter_config.json` and a model card.

    Args:
        theta: [K].
        base: what `from_pretrained` takes for the base model.
        shown_as: the folder's final path, for the card.
    """
    write_tensors(folder / "adapter_model.safetensors", {**unflatten(theta, zoo.layout), **zoo.head})
    config = LoraConfig(
        task_type="SEQ_CLS",
        base_model_name_or_path=base,
        inference_mode=True,
        r=zoo.config["rank"],
        lora_alpha=zoo.config["alpha"],
        target_modules=zoo.config["target_modules"],
        modules_to_save=zoo.config["modules_to_save"],
    )
    write_json(folder / "adapter_config.json", _sorted_sets(config.to_dict()))
    card = _CARD.format(base=base, folder=shown_as, **zoo.config)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _sorted_sets(value: Any) -> Any:
    """Sets have no order; as sorted lists the same adapter gives the same bytes."""
    if isinstance(value, dict):
        return {key: _sorted_sets(item) for key, item in value.items()}
    if isinstance(value, set):
        return sorted(value)
    return value
