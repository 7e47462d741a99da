"""Merge a LoRA into the base model and score it: W = W0 + (alpha / r) B A."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import log_softmax
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedModel

from condpdiff.common.errors import UserError
from condpdiff.common.hardware import device
from condpdiff.text.metrics import score
from condpdiff.text.models import load_classifier
from condpdiff.text.rows import Batches
from condpdiff.text.task import Task
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.layout import unflatten

_PREFIX = "base_model.model."


class Scorer:
    """The base model of one task with its trained head; scores vectors theta [K] on fixed rows.

    Rows are tokenised once. A candidate costs its merge (a rank-r product a module) and its forward passes.
    """

    def __init__(self, base: Path, zoo: Zoo, task: Task, splits: dict[str, pd.DataFrame], tokens: int) -> None:
        self.task, self.layout = task, zoo.layout
        self.scale = zoo.config["alpha"] / zoo.config["rank"]
        self.device = device()
        self.model = load_classifier(base, task.data.num_outputs).eval().requires_grad_(False)
        load_head(self.model, zoo.head)
        self.model.to(self.device)
        self.modules = merge_targets(self.model, zoo)
        self.base_weights = {name: module.weight.clone() for name, module in self.modules.items()}
        tokenizer = AutoTokenizer.from_pretrained(base)
        self.batches = {k: Batches.of(v, tokenizer, task.finetune.max_length, tokens) for k, v in splits.items()}
        self.labels = {k: v["label"].to_numpy() for k, v in splits.items()}
        self.passes: Counter[str] = Counter()
        """Rows that went through the model so far, by split."""

    def merge(self, theta: Tensor | None) -> None:
        """Set the model's weights to W0 + (alpha / r) B A; None restores W0 (no LoRA)."""
        tensors = {} if theta is None else unflatten(theta.to(self.device), self.layout)
        for name, module in self.modules.items():
            weight = self.base_weights[name]
            if theta is not None:
                a = tensors[f"{_PREFIX}{name}.lora_A.weight"]  # [r, in]
                b = tensors[f"{_PREFIX}{name}.lora_B.weight"]  # [out, r]
                weight = torch.addmm(weight, b, a, alpha=self.scale)
            module.weight.data.copy_(weight)

    @torch.inference_mode()
    def outputs(self, split: str) -> np.ndarray:
        """Logits [V, classes], or values [V, 1], of the model as it is merged now: float32, in split order."""
        batches = self.batches[split]
        outputs = [self.model(**{k: v.to(self.device) for k, v in inputs.items()}).logits for inputs in batches.inputs]
        self.passes[split] += len(batches.order)
        return batches.in_split_order(outputs)

    def predict(self, split: str) -> np.ndarray:
        """Class indices or values [V] float32 of the model as it is merged now."""
        return self.predictions_of(self.outputs(split))

    def losses(self, split: str) -> np.ndarray:
        """Loss of each row [V] float64 of the model as it is merged now, in split order."""
        return self.losses_of(self.outputs(split), self.labels[split])

    def predictions_of(self, outputs: np.ndarray) -> np.ndarray:
        """Class indices or values [V] float32 that outputs [V, classes] or [V, 1] stand for."""
        return outputs[:, 0] if self.task.data.kind == "regression" else outputs.argmax(1).astype(np.float32)

    def losses_of(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Cross entropy in nats (of [V, classes]) or squared error (of [V, 1]) against labels [V]: [V] float64."""
        outputs = outputs.astype(np.float64)
        if self.task.data.kind == "regression":
            return (outputs[:, 0] - labels) ** 2
        return -log_softmax(outputs, axis=1)[np.arange(len(labels)), labels.astype(int)]

    def score(self, split: str, predictions: np.ndarray) -> dict[str, float]:
        """The task's metrics of predictions [V] on a split, in percent."""
        return score(predictions, self.labels[split], self.task.metrics)

    def predict_all(
        self, vectors: Tensor, what: str, splits: Sequence[str] | None = None
    ) -> dict[str, list[np.ndarray]]:
        """Merge and predict each row of `vectors` [M, K] on every split, or on `splits` alone."""
        splits = list(self.batches) if splits is None else splits
        found: dict[str, list[np.ndarray]] = {split: [] for split in splits}
        for theta in tqdm(vectors, desc=what, unit="candidate", leave=False):
            self.merge(theta)
            for split in splits:
                found[split].append(self.predict(split))
        return found


def merge_targets(model: PreTrainedModel, zoo: Zoo) -> dict[str, nn.Linear]:
    """The linear modules that the zoo's layout names, by name.

    Raises:
        UserError: the base model lacks such a module, or its weight has another shape.
    """
    names = sorted({e.key.removeprefix(_PREFIX).split(".lora_")[0] for e in zoo.layout.entries})
    shapes = {e.key: e.shape for e in zoo.layout.entries}
    found = {}
    for name in names:
        a, b = (shapes[f"{_PREFIX}{name}.lora_{m}.weight"] for m in "AB")
        try:
            module = model.get_submodule(name)
        except AttributeError:
            raise UserError(
                f"data/base: no module {name!r}, which the zoo's layout names; rerun finetune-collect"
            ) from None
        if not isinstance(module, nn.Linear):
            raise UserError(f"data/base: {name}: found {type(module).__name__}, allowed: Linear (the layout's)")
        shape, expected = list(module.weight.shape), [b[0], a[1]]
        if shape != expected:
            raise UserError(f"data/base: {name}: found {shape}, allowed: {expected} (the layout's)")
        found[name] = module
    return found


def load_head(model: PreTrainedModel, head: dict[str, Tensor]) -> None:
    """Put the trained head's tensors, stored under PEFT keys, into a plain classifier."""
    result = model.load_state_dict({key.removeprefix(_PREFIX): value for key, value in head.items()}, strict=False)
    if result.unexpected_keys:
        raise UserError(f"head.safetensors: found {result.unexpected_keys[0]!r}, which the base model does not have")
