"""What text adapters say of texts: labels with their probabilities, or values."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from huggingface_hub import HfApi, constants
from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from condpdiff.common.errors import UserError, first_line
from condpdiff.common.files import as_spelt, read_json, read_tensors
from condpdiff.common.hardware import device
from condpdiff.common.tables import SUFFIXES, read_table
from condpdiff.packed import config
from condpdiff.text.models import load_tokenizer
from condpdiff.text.rows import Batches
from condpdiff.zoo.adapters import LABELS
from condpdiff.zoo.placed import PREFIX

HEADS = ("classifier", "classifier.out_proj", "classification_head.out_proj", "score", "logits_proj")
"""What transformers calls the last layer of a classifier."""
LONGEST, BATCH = 512, 4096
"""Tokens of a text, which is cut there; padded tokens a forward pass."""
TOP, WIDTH = 3, 48
"""Labels, and characters of a text, that a table shows."""


@dataclass(frozen=True)
class Applied:
    """What an adapter says of texts."""

    outputs: np.ndarray
    """float32: probabilities [V, C], or values [V, 1]."""
    labels: list[str] | None
    """C class names; None where outputs are values."""

    def said(self, row: int) -> dict[str, Any]:
        """Of one text: `label` and `probabilities` by name, or `value`."""
        found = [float(x) for x in self.outputs[row]]
        if self.labels is None:
            return {"value": found[0]}
        by_name = dict(zip(self.labels, found, strict=True))
        return {"label": max(by_name, key=by_name.__getitem__), "probabilities": by_name}

    def shown(self, row: int) -> str:
        """The same in few words: the value, or the TOP labels, the likeliest first."""
        found = self.outputs[row]
        if self.labels is None:
            return f"{found[0]:.3f}"
        return ", ".join(f"{self.labels[i]} {found[i]:.3f}" for i in np.argsort(-found, kind="stable")[:TOP])


def read_texts(path: Path) -> pd.DataFrame:
    """Texts of a file: a .txt has one a line, a table a column `text` and, of pairs, `text_pair`.

    Returns:
        Rows as `rows_of` gives them.

    Raises:
        UserError: the file can't be read, or has no texts.
    """
    if not as_spelt(path).is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix.lower() == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 at byte {error.start}; allowed: UTF-8 text") from None
        frame = pd.DataFrame({"text": [line for line in lines if line.strip()]})
    elif path.suffix.lower() in SUFFIXES:
        frame = read_table(path, str(path))
    else:
        raise UserError(f"{path}: found suffix {path.suffix!r}, allowed: .txt, {', '.join(SUFFIXES)}")
    if "text" not in frame or frame.empty:
        raise UserError(f"{path}: found {len(frame)} rows of {', '.join(map(str, frame))}; allowed: rows of text")
    found = rows_of(*(frame[column].tolist() for column in ("text", "text_pair") if column in frame))
    for column in found:
        for number, text in enumerate(found[column], start=1):
            if not isinstance(text, str):
                raise UserError(f"{path}: row {number}: {column}: found {text!r}, allowed: text")
    return found


def rows_of(texts: Sequence[str], pairs: Sequence[str] | None = None) -> pd.DataFrame:
    """Texts as `apply` takes them: columns `text` and `text_pair`, "" where there is none."""
    return pd.DataFrame({"text": texts, "text_pair": pairs or [""] * len(texts)}, dtype=object)


@torch.inference_mode()
def apply(adapter: Path, rows: pd.DataFrame, base: Path | None = None) -> Applied:
    """Run a PEFT adapter of a text classifier on its base model.

    Safetensors and JSON alone are read, and nothing in the folders is run.

    Args:
        adapter: a folder as `Lora.save_pretrained` or PEFT writes it, of task_type SEQ_CLS.
        rows: V of them, as `rows_of` gives them.
        base: folder of its base model, or of the generator that made it; by default, what the adapter names.

    Raises:
        UserError: no such adapter, or of another kind; its base can't be had; the two do not fit.
    """
    where = adapter / "adapter_config.json"
    settings = read_json(where)
    if (kind := settings.get("task_type") if isinstance(settings, dict) else settings) != "SEQ_CLS":
        raise UserError(f"{where}: task_type: found {kind!r}, allowed: 'SEQ_CLS', classifiers of text")
    tensors = read_tensors(adapter / "adapter_model.safetensors")
    count = _outputs(tensors, adapter)
    name = str(_folder(base) if base else settings.get("base_model_name_or_path"))
    model, tokenizer = _load(name, count, adapter)
    labels = _labels(adapter / LABELS, count, model.config.id2label)
    _place(model, tensors, adapter, name)
    batches = Batches.of(rows, tokenizer, min(LONGEST, tokenizer.model_max_length), BATCH)
    model.to(device()).eval()
    found = [model(**{k: v.to(device()) for k, v in inputs.items()}).logits for inputs in batches.inputs]
    logits = batches.in_split_order(found)
    return Applied(logits if labels is None else torch.from_numpy(logits).softmax(1).numpy(), labels)


def _load(name: str, count: int, adapter: Path) -> tuple[Any, Any]:
    """The base model with a new head of so many outputs, and its tokenizer."""
    try:
        if not Path(name).is_dir() and not constants.HF_HUB_OFFLINE:
            HfApi().model_info(name, timeout=10)  # downloads would try six times
        model = AutoModelForSequenceClassification.from_pretrained(
            name, num_labels=count, use_safetensors=True, trust_remote_code=False, ignore_mismatched_sizes=True
        )
        tokenizer = load_tokenizer(Path(name))
    except Exception as error:  # transformers and the hub's client raise dozens of kinds
        own = "--base FOLDER gives its own, or that of the generator which made the adapter"
        raise UserError(f"{adapter}: base model {name!r} can't be loaded ({first_line(error)}); {own}") from None
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def _place(model: Any, tensors: dict[str, Tensor], adapter: Path, base: str) -> None:
    """Put an adapter's tensors into its base model; each must have a place there."""
    try:
        lora = PeftConfig.from_pretrained(str(adapter))
        lora.base_model_name_or_path = base  # or PEFT warns that it is elsewhere
        result: Any = set_peft_model_state_dict(get_peft_model(model, lora), tensors)
    except Exception as error:  # PEFT and torch raise a dozen kinds
        raise UserError(f"{adapter}: does not fit the base model {base!r} ({first_line(error)})") from None
    missing = [key for key in result.missing_keys if ".lora_" in key or ".modules_to_save." in key]
    if wrong := [*result.unexpected_keys, *missing]:
        raise UserError(f"{adapter}: does not fit the base model {base!r}: {wrong[0]!r} is in one of them alone")


def _folder(own: Path) -> Path:
    """The folder of a base model: the user's, or that of the user's generator."""
    if not own.is_dir():
        raise UserError(f"--base: no such folder {str(own)!r}")
    file = own / config.FILE
    if not file.is_file() or "format" not in read_json(file):
        return own
    from condpdiff.packed.generator import Generator

    return Generator(own).base()


def _outputs(tensors: dict[str, Tensor], adapter: Path) -> int:
    """C of the classifier's last layer [C, d]."""
    found = [weight for head in HEADS if (weight := tensors.get(f"{PREFIX}{head}.weight")) is not None]
    if not found:
        raise UserError(f"{adapter}: no classifier among its tensors, allowed: {' or '.join(HEADS)}")
    return len(found[0])


def _labels(path: Path, count: int, of_base: dict[int, str]) -> list[str] | None:
    """Class names in the order of their indices; None where the one output is a value."""
    if count == 1:
        return None
    if not path.is_file():
        return [of_base[i] for i in range(count)]
    found = read_json(path)
    if not isinstance(found, dict) or sorted(found) != sorted(map(str, range(count))):
        of = ", ".join(found) if isinstance(found, dict) else "nothing"
        raise UserError(f"{path}: found labels of {of}, allowed: of 0 to {count - 1}, as the classifier")
    return [str(found[str(i)]) for i in range(count)]


def table(rows: pd.DataFrame, said: dict[str, Applied]) -> str:
    """A line a text, a column an adapter, aligned."""
    texts = [" / ".join(filter(None, pair)) for pair in rows.itertuples(index=False)]
    short = [text if len(text) <= WIDTH else text[: WIDTH - 1] + "…" for text in texts]
    lines = [["text", *said], *([text, *(one.shown(i) for one in said.values())] for i, text in enumerate(short))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def as_json(rows: pd.DataFrame, said: dict[str, Applied]) -> str:
    """A list of texts, each with what every adapter says of it."""
    texts = rows.to_dict("records")
    found = [{**text, "said": {name: one.said(i) for name, one in said.items()}} for i, text in enumerate(texts)]
    return json.dumps(found, indent=2, ensure_ascii=False)
