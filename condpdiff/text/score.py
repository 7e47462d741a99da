"""Merge a LoRA into the base model, W = W0 + (alpha / r) B A, and score it with the task's own trained head."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_rows, write_tensors
from condpdiff.common.hardware import device
from condpdiff.common.stage import once
from condpdiff.text.metrics import constant_prediction, score
from condpdiff.text.models import Batches, load_model, load_tokenizer
from condpdiff.text.task import Task
from condpdiff.zoo.checkpoints import Zoo, digest, load_zoo, unflatten
from condpdiff.zoo.placed import PREFIX, merge_targets, weight_of

FIRST_TOKEN = ("bert", "roberta", "electra", "deberta")
"""Model types whose head reads the last layer's first token alone, and whose layers are built as BERT's."""


class Scorer:
    """The base model of one task with its trained head; scores vectors theta [K] on fixed rows, tokenised once.

    Outputs are float32 logits [V, classes], values [V, 1], or of a language model each row's loss in nats a token
    [V, 1]; predictions are class indices or values [V] float32; metrics are in percent.
    """

    def __init__(self, base: Path, zoo: Zoo, task: Task, splits: Mapping[str, pd.DataFrame], tokens: int) -> None:
        """Args: tokens: padded tokens a forward pass. Raises a UserError if base and zoo do not fit."""
        model, _ = load_model(base, task.data.num_outputs)
        load_head(model, zoo.head)
        _skip_what_the_head_ignores(model)
        self.model: Any = model.eval().requires_grad_(False).to(device())
        self.layout, self.scale = zoo.layout, zoo.config["alpha"] / zoo.config["rank"]
        self.modules = merge_targets(self.model, zoo.layout)
        self.base_weights = {name: weight_of(module).clone() for name, module in self.modules.items()}
        self.rows = {name: len(rows) for name, rows in splits.items()}
        self.name, self.merged = str(zoo.config.get("task")), digest(None)
        self.data, self.metrics, tokenizer = task.data, [str(name) for name in task.metrics], load_tokenizer(base)
        self.batches = {k: Batches(v, tokenizer, task.finetune.max_length, tokens) for k, v in splits.items()}
        self.labels = {k: v["label"].to_numpy() for k, v in splits.items()}

    def merge(self, theta: Tensor | None) -> None:
        """Set the model's weights to W0 + (alpha / r) B A; None restores W0. Another length of theta: a UserError."""
        self.merged = digest(theta)
        tensors = {} if theta is None else unflatten(theta.to(device()), self.layout)
        for name, module in self.modules.items():
            weight = self.base_weights[name]
            if theta is not None:
                a = tensors[f"{PREFIX}{name}.lora_A.weight"]  # [r, in]
                b = tensors[f"{PREFIX}{name}.lora_B.weight"]  # [out, r]
                weight = torch.addmm(weight, b, a, alpha=self.scale)
            weight_of(module).copy_(weight)

    def outputs(self, split: str) -> np.ndarray:
        """Of the model as it is merged now, in split order; the running stage keeps them until it ends."""
        batches, language, key = self.batches[split], self.data.kind == "language", f"{self.name} {self.merged} {split}"
        with torch.inference_mode():
            made = once(key, lambda: {"outputs": torch.from_numpy(batches.outputs(self.model, language))})
        return made["outputs"].numpy()

    def losses(self, split: str) -> np.ndarray:
        """Of the model as it is merged now, in split order: cross entropy in nats, or squared error [V] float64."""
        outputs, labels = self.outputs(split).astype(np.float64), self.labels[split]
        if self.data.kind == "language":
            return outputs[:, 0]
        if self.data.kind == "regression":
            return (outputs[:, 0] - labels) ** 2
        shifted = outputs - outputs.max(1, keepdims=True)
        own = shifted[np.arange(len(labels)), labels.astype(int)]
        return np.log(np.exp(shifted).sum(1)) - own

    def predict(self, split: str) -> np.ndarray:
        """Predictions of the model as it is merged now."""
        outputs = self.outputs(split)
        return outputs.argmax(1).astype(np.float32) if self.data.kind == "classification" else outputs[:, 0]

    def score(self, split: str, predictions: np.ndarray) -> dict[str, float]:
        """The task's metrics of predictions on a split."""
        return score(predictions, self.labels[split], self.metrics, self.data.f1_classes)

    def validate(self) -> tuple[dict[str, float], np.ndarray]:
        """The metrics and the predictions of the model as it is merged now on the validation rows."""
        predictions = self.predict("validation")
        return self.score("validation", predictions), predictions

    def constant(self, train: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Predictions of the select and the validation rows, whatever the text: the majority class of the training
        labels, or their mean (regression); of a language model the loss of a token at random."""
        constant = constant_prediction(train["label"].to_numpy(), self.data.kind)
        if self.data.kind == "language":
            constant = float(np.log(self.model.config.vocab_size))
        select, validation = (np.full(self.rows[split], constant, np.float32) for split in ("select", "validation"))
        return select, validation

    def write(self, folder: Path, made: Sequence[np.ndarray]) -> None:
        """predictions.safetensors: `predictions` [rows, V] float32 of the validation rows, and `labels` [V]."""
        labels = self.labels["validation"].astype(np.float32)
        tensors = {"predictions": torch.from_numpy(np.stack(made)), "labels": torch.from_numpy(labels)}
        write_tensors(folder / "predictions.safetensors", tensors)


class Panel:
    """Scores LoRAs on a task with its own head by its first metric on all its validation rows, in percent."""

    def __init__(self, name: str, task: Task, tokens: int, data: Path) -> None:
        """Args: tokens: a forward pass; data: where the stages before wrote."""
        rows = {"validation": read_rows(data / "tasks" / name, "validation")}
        self.scorer = Scorer(data / "base", load_zoo(data / "zoo" / name, 1), task, rows, tokens)

    def score(self, theta: Tensor) -> float:
        """The score of one LoRA [K]."""
        self.scorer.merge(theta)
        return next(iter(self.scorer.validate()[0].values()))


def load_head(model: PreTrainedModel, head: dict[str, Tensor]) -> None:
    """Put the trained head's tensors, stored under PEFT keys, into a plain classifier."""
    result = model.load_state_dict({key.removeprefix(PREFIX): value for key, value in head.items()}, strict=False)
    if result.unexpected_keys:
        raise UserError(f"head.safetensors: found {result.unexpected_keys[0]!r}, which the base model does not have")


def _skip_what_the_head_ignores(model: PreTrainedModel) -> None:
    """From the last layer's attention on, work on the first token alone: of six layers an eighth of the operations."""
    if model.config.model_type in FIRST_TOKEN:
        last = model.base_model.get_submodule(f"encoder.layer.{model.config.num_hidden_layers - 1}.attention.output")
        # It takes what attention found, and the layer's input: both [V, tokens, d].
        last.register_forward_pre_hook(lambda module, inputs: tuple(hidden[:, :1] for hidden in inputs))
