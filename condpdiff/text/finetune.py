"""Fine-tune a LoRA and a head on one text task: what `zoo.collect` asks of the text domain."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from peft import PeftModel
from torch import Tensor

from condpdiff.common.files import read_rows
from condpdiff.common.hardware import device, rank, share
from condpdiff.text.metrics import constant_prediction, score
from condpdiff.text.models import Batches, length_grouped_order, load_tokenizer, peft_model, row_losses, tokenize
from condpdiff.text.task import Task
from condpdiff.zoo.collect import BatchLoss, Finetuning
from condpdiff.zoo.settings import Collect

VALIDATION_TOKENS = 512  # padded tokens of a batch of validation rows


class LabelLoss(BatchLoss):
    """Cross entropy of class labels; squared error of ratings."""

    def forward(self, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Token ids and mask [B, T] each, labels [B] int64 or float32 -> the mean loss."""
        logits = self.model(**inputs).logits  # [B, classes], or [B, 1]
        if labels.is_floating_point():
            return F.mse_loss(logits[:, 0].float(), labels)
        return F.cross_entropy(logits.float(), labels)


class LanguageLoss(BatchLoss):
    """Cross entropy of the next token, the mean over rows."""

    def forward(self, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Token ids and mask [B, T] each -> the mean loss; labels are not read."""
        return row_losses(self.model, inputs).mean()


class TextFinetuning(Finetuning):
    """Rows of one task, tokenised once; a batch holds rows of similar length."""

    def __init__(self, name: str, task: Task, collect: Collect, data: Path, base: Path) -> None:
        """A UserError if the data can't be read, or the processes can't share a batch."""
        super().__init__(name, task.finetune, collect)
        self.task, self.base, self.head_lr = task, base, task.finetune.head_lr
        self.config = {"num_outputs": task.data.num_outputs}
        rows = {split: read_rows(data, split) for split in ("train", "validation")}
        self.labels = {split: rows[split]["label"].to_numpy() for split in rows}
        self.tokenizer, most = load_tokenizer(base), task.finetune.max_length
        self.train = tokenize(rows["train"], self.tokenizer, most)
        self.validation = Batches(rows["validation"], self.tokenizer, most, VALIDATION_TOKENS)

    def start(self) -> BatchLoss:
        outputs, c = self.task.data.num_outputs, self.collect
        model = peft_model(self.base, outputs, c.seed, c.rank, c.alpha, c.target_modules)
        return (LabelLoss if outputs else LanguageLoss)(model.to(device()).train())

    def batches(self) -> Callable[[int], tuple[Any, ...]]:
        size, where = self.task.finetune.batch_size, device()
        lengths = np.array([len(ids) for ids in self.train["input_ids"]])
        order = length_grouped_order(lengths, size, self.steps, self.collect.seed).reshape(self.steps, size)
        mine = slice(rank() * share(size), (rank() + 1) * share(size))
        dtype = torch.float32 if self.task.data.kind == "regression" else torch.int64
        labels = torch.tensor(self.labels["train"], dtype=dtype)

        def batch(step: int) -> tuple[Any, ...]:
            rows = order[step, mine]
            inputs = self.tokenizer.pad({k: [v[i] for i in rows] for k, v in self.train.items()}, return_tensors="pt")
            return {k: v.to(where) for k, v in inputs.items()}, labels[rows].to(where)

        return batch

    @torch.no_grad()
    def score(self, model: PeftModel) -> float:
        """The task's first metric, in percent."""
        model.eval()
        kind = self.task.data.kind
        outputs = self.validation.outputs(model, kind == "language")
        model.train()
        return self._metric(outputs.argmax(-1) if kind == "classification" else outputs[:, 0])

    def verdict(self, scores: list[tuple[int, float]]) -> tuple[str, str | None]:
        constant = constant_prediction(self.labels["train"], self.task.data.kind)
        if self.task.data.kind == "language":
            constant = math.log(len(self.tokenizer))
        floor, last = self._metric(np.full(len(self.labels["validation"]), constant)), scores[-1][1]
        said = f"{self.task.metrics[0]} {last:.1f} after the last step, a constant gives {floor:.1f}"
        return said, None if last > floor else "a constant"

    def _metric(self, predictions: np.ndarray) -> float:
        name, labels = self.task.metrics[0], self.labels["validation"]
        return score(predictions, labels, [name], self.task.data.f1_classes)[name]
