"""What the text domain knows of each model family: where the LoRA goes and what the head is."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging

from condpdiff.common.errors import UserError

# PEFT still reads an attribute that transformers renamed; nothing that a user can mend.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
# Loading a base model takes a second and always finds a new head: no bar, no table of missing weights.
logging.set_verbosity_error()
logging.disable_progress_bar()

TASK_TYPE = TaskType.SEQ_CLS.value
CARD = """---
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
"""Model card of a generated adapter."""

# All four attention projections of a layer: this gives the K of the paper's Table 1
# (73,728 at r = 1 for BERT-base and RoBERTa-base, 92,160 for DeBERTa-base).
_BERT = ("query", "key", "value", "attention.output.dense")
ATTENTION = {
    "bert": _BERT,
    "roberta": _BERT,
    "electra": _BERT,
    "deberta": ("in_proj", "pos_proj", "pos_q_proj", "attention.output.dense"),
    "deberta-v2": ("query_proj", "key_proj", "value_proj", "attention.output.dense"),
    "distilbert": ("q_lin", "k_lin", "v_lin", "out_lin"),
}
# The head is every module that the pre-trained weights do not hold.
HEADS = {
    "bert": ("classifier",),
    "roberta": ("classifier",),
    "electra": ("classifier",),
    "deberta": ("pooler", "classifier"),
    "deberta-v2": ("pooler", "classifier"),
    "distilbert": ("pre_classifier", "classifier"),
}


def target_modules(model_type: str, asked: str | Sequence[str]) -> list[str]:
    """Module suffixes that get a LoRA.

    Raises:
        UserError: `auto` on a model family that is not known.
    """
    if asked != "auto":
        return sorted(set(asked))
    if model_type not in ATTENTION:
        raise UserError(
            f"params.yaml: collect.target_modules: found 'auto' for model type {model_type!r}, "
            f"allowed: a list of module suffixes, or auto for {', '.join(sorted(ATTENTION))}"
        )
    return sorted(ATTENTION[model_type])


def lora_config(model_type: str, rank: int, alpha: float, asked: str | Sequence[str]) -> LoraConfig:
    """PEFT's configuration of a run; the head travels under `modules_to_save`."""
    return LoraConfig(
        task_type=TASK_TYPE,
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        target_modules=target_modules(model_type, asked),
        modules_to_save=list(HEADS.get(model_type, ("classifier",))),
    )


def load_classifier(base: Path, num_outputs: int, seed: int = 0) -> PreTrainedModel:
    """The base model with a fresh head; the head's initial weights depend on `seed` alone."""
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=num_outputs, attn_implementation="sdpa" if _has_sdpa(base) else "eager"
    )


def peft_classifier(
    base: Path, num_outputs: int, seed: int, rank: int, alpha: float, asked: str | Sequence[str]
) -> PeftModel:
    """The base model with a LoRA and a head of fresh values, which depend on `seed` alone.

    Raises:
        UserError: the model has no module of those names.
    """
    return _with_lora(load_classifier(base, num_outputs, seed), rank, alpha, asked)


def empty_peft_model(config: dict[str, Any], rank: int, alpha: float, asked: str | Sequence[str]) -> PeftModel:
    """The architecture without memory for its weights (meta device), with its LoRA placed: for counting K.

    Raises:
        UserError: the model has no module of those names.
    """
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**config))
        return _with_lora(model, rank, alpha, asked, low_cpu_mem_usage=True)


def _with_lora(model: PreTrainedModel, rank: int, alpha: float, asked: str | Sequence[str], **how: Any) -> PeftModel:
    lora = lora_config(model.config.model_type, rank, alpha, asked)
    try:
        return get_peft_model(model, lora, **how)
    except ValueError as error:
        found = f"found {asked}: {' '.join(str(error).split())}"
        raise UserError(f"params.yaml: collect.target_modules: {found}") from None


def _has_sdpa(base: Path) -> bool:
    return AutoConfig.from_pretrained(base).model_type in ("bert", "roberta", "electra", "distilbert")
