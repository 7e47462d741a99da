"""Write weights as a PEFT adapter: `PeftModel.from_pretrained(base, folder)` loads it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from condpdiff.common.files import write_json, write_tensors
from condpdiff.zoo.checkpoints import Zoo, unflatten

WRITTEN = CONFIG, PEFT_FILE, LABELS, CARD = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "labels.json",
    "README.md",
)
SAMPLED = "Sampled by Cond P-Diff from its condition; its weights were not fine-tuned."
# By PEFT's task type, a tag of the card and how to load the adapter; a LoRA without one is a text-to-image model's.
KINDS = {
    "SEQ_CLS": ("text-classification", """from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base = AutoModelForSequenceClassification.from_pretrained("{base}", num_labels={outputs})
model = PeftModel.from_pretrained(base, "{folder}").eval()
tokenizer = AutoTokenizer.from_pretrained("{base}")
"""),
    "CAUSAL_LM": ("text-generation", """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "{folder}").eval()
tokenizer = AutoTokenizer.from_pretrained("{base}")
"""),
    # Of a family of text tasks: a text's class is the nearer, by cosine, of two fixed directions to its embedding.
    "FEATURE_EXTRACTION": ("feature-extraction", """from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

from condpdiff.text.families.losses import fixed_head

base = AutoModel.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{folder}").eval()
tokens = AutoTokenizer.from_pretrained("{base}")(TEXT, return_tensors="pt")
scores = model(**tokens).last_hidden_state.mean(1) @ fixed_head(base.config.hidden_size).T  # no, yes
"""),
    None: ("text-to-image", """from diffusers import PixArtAlphaPipeline
from peft import PeftModel

pipe = PixArtAlphaPipeline.from_pretrained("{base}")
pipe.transformer = PeftModel.from_pretrained(pipe.transformer, "{folder}").eval()
image = pipe("a photograph of a cat, whole", use_resolution_binning=False).images[0]
"""),
}  # fmt: skip


def export_adapter(
    folder: Path, theta: Tensor, zoo: Zoo, base: str, shown_as: str, labels: Sequence[str] | None = None
) -> None:
    """`write_adapter` of a sampled theta [K] with its zoo's head and config; `shown_as` is the folder on the card."""
    readme = card(zoo.config, base, shown_as, [f"{SAMPLED} Task: `{zoo.config['task']}`."], labels)
    write_adapter(folder, unflatten(theta, zoo.layout) | zoo.head, zoo.config, base, readme, labels)


def write_adapter(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    base: str,
    readme: str,
    labels: Sequence[str] | None = None,
) -> None:
    """Write `adapter_model.safetensors`, `adapter_config.json`, a model card, and `labels.json` where there are labels.
    Args: tensors: by PEFT key; config: as a zoo's; base: what `from_pretrained` takes for the base model; labels: class
        names in the order of their indices.
    """
    write_tensors(folder / PEFT_FILE, tensors)
    lora = {  # without PEFT, whose import takes seconds; what it leaves out has PEFT's defaults
        "peft_type": "LORA",
        "task_type": config["task_type"],
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": config["rank"],
        "lora_alpha": config["alpha"],
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(config["target_modules"]),
        "modules_to_save": config["modules_to_save"] or None,
    }
    write_json(folder / CONFIG, lora)
    if labels:
        write_json(folder / LABELS, {str(i): label for i, label in enumerate(labels)})
    (folder / CARD).write_text(readme, encoding="utf-8")


def card(
    config: Mapping[str, Any], base: str, folder: str | Path, said: Sequence[str], labels: Sequence[str] | None
) -> str:
    """The model card: the base, how the adapter was made (lines of Markdown), its labels, and how to load it."""
    tag, use = KINDS[config["task_type"]]
    lines = [
        *("---", f"base_model: {base}", "library_name: peft"),
        *(f"tags: [lora, condpdiff, {tag}]", "---", "# A LoRA made by condpdiff\n"),
        f"Rank {config['rank']}, alpha {config['alpha']:g}.\n",
        *said,
    ]
    if labels:
        lines.append(f"\nLabels: {', '.join(f'{i} {label}' for i, label in enumerate(labels))}")
    use = use.format(base=base, folder=folder, outputs=len(labels) if labels else 1)
    return "\n".join([*lines, f"\n```python\n{use}```", ""])
