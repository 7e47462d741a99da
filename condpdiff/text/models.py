"""What the text domain knows of each model family: where the LoRA goes, what the head is; rows as batches of tokens."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from condpdiff.common.errors import UserError, first_line
from condpdiff.common.hardware import device
from condpdiff.zoo.placed import LINEAR

# PEFT still reads an attribute that transformers renamed; nothing that a user can mend.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
# Loading a base model takes a second and always finds a new head: no bar, no table of missing weights.
logging.set_verbosity_error()
logging.disable_progress_bar()

SDPA = ("bert", "roberta", "electra", "distilbert", "modernbert", "gpt2", "llama", "mistral", "qwen2", "qwen3")
"""Model types with torch's fused attention."""
# All attention projections of a layer: of BERT's kind this gives the K of the paper's Table 1
# (73,728 at r = 1 for BERT-base and RoBERTa-base, 92,160 for DeBERTa-base).
_BERT, _LLAMA = ("query", "key", "value", "attention.output.dense"), ("q_proj", "k_proj", "v_proj", "o_proj")
ATTENTION = {
    "bert": _BERT,
    "roberta": _BERT,
    "electra": _BERT,
    "deberta": ("in_proj", "pos_proj", "pos_q_proj", "attention.output.dense"),
    "deberta-v2": ("query_proj", "key_proj", "value_proj", "attention.output.dense"),
    "distilbert": ("q_lin", "k_lin", "v_lin", "out_lin"),
    "albert": ("query", "key", "value", "attention.dense"),
    "mpnet": ("attn.q", "attn.k", "attn.v", "attn.o"),
    "modernbert": ("attn.Wqkv", "attn.Wo"),
    "xlnet": ("ff.layer_1", "ff.layer_2"),  # its attention's weights are no modules
    "gpt2": ("attn.c_attn", "attn.c_proj"),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}


def target_modules(model_type: str, asked: str | Sequence[str]) -> list[str]:
    """Module suffixes that get a LoRA. Raises UserError: `auto` on a model family that is not known."""
    if asked != "auto":
        return sorted(set(asked))
    if model_type not in ATTENTION:
        allowed = f"a list of module suffixes, or auto for {', '.join(sorted(ATTENTION))}"
        found = f"found 'auto' for model type {model_type!r}"
        raise UserError(f"params.yaml: collect.target_modules: {found}, allowed: {allowed}")
    return sorted(ATTENTION[model_type])


def with_lora(
    model: PreTrainedModel, head: list[str], rank: int, alpha: float, asked: str | Sequence[str], outputs: int
) -> PeftModel:
    """The model with a LoRA; the head's modules travel under `modules_to_save`.
    Raises UserError: a target is not the end of a linear module's name, or is that of another kind of module, too."""
    kind = model.config.model_type
    targets = target_modules(kind, asked)
    modules = {n: m for n, m in model.named_modules() if not any(part in head for part in n.split("."))}
    for target in targets:
        found = [module for name, module in modules.items() if f".{name}".endswith(f".{target}")]
        if not found or not all(isinstance(module, LINEAR) for module in found):
            kinds = ", ".join(sorted({type(module).__name__ for module in found})) or "no such module"
            linear = {name.rpartition(".")[2] for name, module in modules.items() if isinstance(module, LINEAR)}
            allowed = f"linear modules ({', '.join(sorted(linear))})"
            raise UserError(f"params.yaml: collect.target_modules: {target!r}: found {kinds}, allowed: {allowed}")
    config = LoraConfig(
        task_type=(TaskType.SEQ_CLS if outputs else TaskType.CAUSAL_LM).value,
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        target_modules=targets,
        modules_to_save=head or None,
        fan_in_fan_out=kind == "gpt2",  # its Conv1D holds the weight turned round
    )
    # On the meta device the LoRA's weights are made there, too; elsewhere they are drawn on the model's device.
    return get_peft_model(model, config, low_cpu_mem_usage=model.device.type == "meta")


def load_model(base: Path, num_outputs: int, seed: int = 0) -> tuple[PreTrainedModel, list[str]]:
    """The base model with a fresh head of so many outputs, or as the causal language model that it is (0).
    Returns: The model, and the names of the modules that are its head: all that the pre-trained weights did not hold,
        drawn from `seed` alone.
    Raises UserError: the base is no language model, or is one of another kind of task.
    """
    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(base)
    attention = "sdpa" if config.model_type in SDPA else "eager"
    options: dict[str, Any] = {"use_safetensors": True, "attn_implementation": attention}
    auto = AutoModelForSequenceClassification if num_outputs else AutoModelForCausalLM
    if num_outputs:
        kind = "regression" if num_outputs == 1 else "single_label_classification"
        options |= {"num_labels": num_outputs, "problem_type": kind, "ignore_mismatched_sizes": True}
    try:
        loaded: Any = auto.from_pretrained(base, output_loading_info=True, **options)
    except ValueError as error:
        raise UserError(f"params.yaml: base.name: {config.model_type} is not served: {first_line(error)}") from None
    model, info = loaded
    if model.config.pad_token_id is None:
        model.config.pad_token_id = load_tokenizer(base).pad_token_id  # the last token that is none is the class's
    fresh = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    return model, head_of(model, fresh)


def head_of(model: PreTrainedModel, fresh: set[str]) -> list[str]:
    """Names, as PEFT takes them, of the modules all of whose weights are `fresh`: the largest ones.
    Raises UserError: fresh weights lie in a module that has others, too."""
    found: list[str] = []
    for name, module in model.named_modules():
        own = {f"{name}.{key}" if name else key for key, _ in module.named_parameters()}
        if own and own <= fresh and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    covered = {key for key in fresh if any(key.startswith(f"{name}.") for name in found)}
    if left := sorted(fresh - covered):
        says = f"{left[0]} is neither in the pre-trained weights nor in a head's module"
        raise UserError(f"params.yaml: base.name: {says}")
    return [_short(name, model) for name in found]


def _short(name: str, model: PreTrainedModel) -> str:
    """The shortest end of a module's name that no other module's name has: PEFT matches ends."""
    names, parts = [other for other, _ in model.named_modules()], name.split(".")
    for start in range(len(parts) - 1, -1, -1):
        end = ".".join(parts[start:])
        if sum(other.endswith(end) for other in names) == 1:
            return end
    return name


def load_tokenizer(base: Path) -> Any:
    """The base's tokenizer; where it has no token to pad with, it pads with the one that ends a text."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # XLNet's head reads the last token.
    tokenizer.padding_side = "left" if AutoConfig.from_pretrained(base).model_type == "xlnet" else "right"
    return tokenizer


def peft_model(
    base: Path, num_outputs: int, seed: int, rank: int, alpha: float, asked: str | Sequence[str]
) -> PeftModel:
    """The base model with a LoRA and, where it has one, a head of fresh values, which depend on `seed` alone.
    Raises UserError: a target matches no module, or one that can't be merged."""
    model, head = load_model(base, num_outputs, seed)
    return with_lora(model, head, rank, alpha, asked, num_outputs)


def check_tasks(base: Path, tasks: Mapping[str, Any], rank: int, asked: str | Sequence[str]) -> None:
    """Raise a UserError unless every task (`text.task.Task`) can be fine-tuned from this base model, before any is:
    a place for the LoRA and each task's head, a position for each token of `max_length`, a token to pad with."""
    if load_tokenizer(base).pad_token is None:
        raise UserError("params.yaml: base.name: its tokenizer has no token to pad with, nor one that ends a text")
    single = {name: task for name, task in tasks.items() if task.members is None}  # a family's head is its own
    models = {n: peft_model(base, n, 0, rank, rank, asked) for n in {t.data.num_outputs for t in single.values()}}
    for name, task in single.items():
        found, most = task.finetune.max_length, positions(models[task.data.num_outputs])
        if most is not None and found > most:
            allowed = f"at most {most}, as the base model has positions for"
            raise UserError(f"configs/tasks/{name}.yaml: finetune.max_length: found {found}, allowed: {allowed}")


def positions(model: torch.nn.Module) -> int | None:
    """How many tokens of a text a model has positions for; None where positions are relative."""
    config: Any = model.config
    most = getattr(config, "max_position_embeddings", None)
    if most is None or most < 0 or not getattr(config, "position_biased_input", True):  # XLNet says -1
        return None
    learned = [m for n, m in model.named_modules() if n.endswith("position_embeddings") and hasattr(m, "padding_idx")]
    padding = next((m.padding_idx for m in learned if m.padding_idx is not None), None)
    return int(most if padding is None else most - padding - 1)  # RoBERTa counts from behind the padding's


def empty_peft_model(config: dict[str, Any], rank: int, alpha: float, asked: str | Sequence[str]) -> PeftModel:
    """The architecture without memory for its weights (meta device), with LoRA and head placed: for counting K.
    Args: config: of the base model; `num_labels` 0 is a causal language model's.
    Raises UserError: a target matches no module, or one that can't be merged.
    """
    settings = AutoConfig.for_model(**config)
    outputs = config.get("num_labels", 2)
    with torch.device("meta"):
        if outputs:
            model = AutoModelForSequenceClassification.from_config(settings)
            prefix, bare = model.base_model_prefix, AutoModel.from_config(settings)
            held = {f"{prefix}.{name}" for name, _ in bare.named_parameters()}
            head = head_of(model, {name for name, _ in model.named_parameters()} - held)
        else:
            model, head = AutoModelForCausalLM.from_config(settings), []
        return with_lora(model, head, rank, alpha, asked, outputs)


def row_losses(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Of a causal language model each row's mean cross entropy in nats of its tokens after the first: [V, 1].
    Args: inputs: input_ids and attention_mask [V, tokens], padded on the right."""
    logits = model(**inputs).logits[:, :-1].float()  # [V, tokens - 1, vocabulary]
    ids, mask = inputs["input_ids"][:, 1:], inputs["attention_mask"][:, 1:]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
    return ((losses * mask).sum(1) / mask.sum(1).clamp_min(1))[:, None]


def tokenize(rows: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list[list[int]]]:
    """Token ids of every row, cut to `max_length`, not padded."""
    pair = rows["text_pair"].tolist() if rows["text_pair"].str.len().any() else None
    return dict(tokenizer(rows["text"].tolist(), pair, truncation=True, max_length=max_length))


class Batches:
    """Rows tokenised once, sorted by length and cut into batches of at most `tokens` padded tokens."""

    def __init__(self, rows: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, max_length: int, tokens: int) -> None:
        encoded = tokenize(rows, tokenizer, max_length)
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        self.order = order = np.argsort(lengths, kind="stable")  # [V]: position of the batches' rows in the split
        self.inputs: list[dict[str, Tensor]] = []
        start = 0
        while start < len(order):
            end = start + 1  # at least one row, however long
            while end < len(order) and (end + 1 - start) * lengths[order[end]] <= tokens:
                end += 1
            rows_of_batch = {key: [values[i] for i in order[start:end]] for key, values in encoded.items()}
            self.inputs.append(dict(tokenizer.pad(rows_of_batch, return_tensors="pt")))
            start = end

    def outputs(self, model: Any, language: bool = False) -> np.ndarray:
        """Of each row in the split's order: logits [V, classes], or of a causal language model its loss [V, 1]."""
        moved = ({key: tensor.to(device()) for key, tensor in inputs.items()} for inputs in self.inputs)
        found = [row_losses(model, inputs) if language else model(**inputs).logits for inputs in moved]
        stacked = torch.cat(found).float().cpu().numpy()
        restored = np.empty_like(stacked)
        restored[self.order] = stacked
        return restored


def length_grouped_order(lengths: np.ndarray, batch_size: int, steps: int, seed: int) -> np.ndarray:
    """Row indices [steps * batch_size] of a whole training run, so that each batch holds rows of similar length.
    It is fixed beforehand, so that a resumed run sees the rows that it would have seen."""
    rng, window = np.random.default_rng(seed), 32 * batch_size
    batches: list[np.ndarray] = []
    while len(batches) < steps:  # a pass shuffles rows, sorts windows of 32 batches by length, shuffles the batches
        shuffled = rng.permutation(len(lengths))
        if len(shuffled) < batch_size:
            shuffled = np.resize(shuffled, batch_size)
        of_window = (shuffled[i : i + window] for i in range(0, len(shuffled), window))
        by_length = np.concatenate([w[np.argsort(lengths[w], kind="stable")] for w in of_window])
        full = by_length[: len(by_length) // batch_size * batch_size].reshape(-1, batch_size)
        batches += [full[i] for i in rng.permutation(len(full))]
    return np.concatenate(batches[:steps])
