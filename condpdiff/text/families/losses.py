"""A family of text tasks: the losses of its members' LoRAs, of many at once, under one head that is fixed.

The head is the same for all tasks and is never trained, so that a LoRA's weights alone say which task it is for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from condpdiff.common.errors import UserError, first_line
from condpdiff.common.files import read_rows
from condpdiff.common.hardware import device
from condpdiff.text.models import target_modules
from condpdiff.text.task import Task
from condpdiff.zoo.checkpoints import Layout, layout_of
from condpdiff.zoo.collect import draw_lora, lora_state, trained_part
from condpdiff.zoo.many import Losses, ManyFinetuning
from condpdiff.zoo.placed import batched_loras
from condpdiff.zoo.settings import Collect

LAYERED = ("bert", "roberta", "electra")  # model types whose layers are built as BERT's
SHARPNESS = 20.0  # logits are so many times a cosine
BATCH = 256  # rows of a pass through the layers below the first LoRA


def load_base(base: Path) -> PreTrainedModel:
    """The encoder without a head; raises a UserError if it is of a type whose layers are not known here."""
    if (found := AutoConfig.from_pretrained(base).model_type) not in LAYERED:
        raise UserError(f"params.yaml: base.name: found model type {found!r}, allowed: {', '.join(LAYERED)} (families)")
    model: PreTrainedModel = AutoModel.from_pretrained(base, attn_implementation="sdpa", use_safetensors=True)
    return model.eval().requires_grad_(False)


def fixed_head(width: int) -> Tensor:
    """Two orthonormal directions [2, width], of no and yes, which depend on the width alone."""
    no, yes = torch.randn(2, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    no = no / no.norm()
    yes = yes - (yes @ no) * no
    return torch.stack([no, yes / yes.norm()]).float()


@dataclass(frozen=True)
class Hidden:
    """Texts as the first layer that has a LoRA takes them."""

    states: Tensor  # [R, T, d]
    mask: Tensor  # [R, T] bool: which are tokens

    def __getitem__(self, rows: Tensor) -> "Hidden":
        """Some of the rows, no longer than the longest of them."""
        mask = self.mask[rows]
        longest = int(mask.sum(1).max())
        return Hidden(self.states[rows, :longest], mask[:, :longest])


class Classifier:
    """The base model under many LoRAs at once, with the fixed head; what no LoRA changes is worked out once a text."""

    def __init__(self, base: Path, layout: Layout, scale: float, max_length: int) -> None:
        """Args: scale: alpha / r; max_length: tokens a text; longer ones are cut."""
        self.layout, self.scale, self.max_length = layout, scale, max_length
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.model = load_base(base).to(device())  # type: ignore[arg-type]
        first = max(0, min(entry.layer for entry in layout.entries))
        self.below, self.above = self.model.encoder.layer[:first], self.model.encoder.layer[first:]
        self.head = fixed_head(self.model.config.hidden_size).to(device())

    @torch.no_grad()
    def hidden(self, texts: Sequence[str]) -> Hidden:
        """Through the layers below the first LoRA."""
        cut = {"truncation": True, "max_length": self.max_length, "padding": "max_length"}
        found = self.tokenizer(list(texts), return_tensors="pt", **cut)
        ids, mask = found["input_ids"].to(device()), found["attention_mask"].bool().to(device())
        states = torch.zeros(*ids.shape, self.model.config.hidden_size, device=device())
        for rows in mask.sum(1).argsort().split(BATCH):
            longest = int(mask[rows].sum(1).max())
            x = self.model.embeddings(input_ids=ids[rows, :longest])
            for layer in self.below:
                x = layer(x, mask[rows, None, None, :longest])
            states[rows, :longest] = x
        return Hidden(states, mask)

    def __call__(self, theta: Tensor, batch: Hidden) -> Tensor:
        """theta [S, K], and S V rows of which V follow each other for each LoRA -> logits [S V, 2]."""
        x = batch.states
        with batched_loras(self.model, self.layout, self.scale, theta):
            for layer in self.above:
                x = layer(x, batch.mask[:, None, None])
        pooled = F.normalize((x * batch.mask[..., None]).sum(1), dim=1)
        return SHARPNESS * pooled @ self.head.T


class Family(ManyFinetuning):
    """All members' training rows."""

    def __init__(self, task: Task, collect: Collect, data: Path, base: Path) -> None:
        """Raises a UserError if the data or the base can't be read, or the model has no such target modules."""
        bare = load_base(base)
        modules = target_modules(bare.config.model_type, collect.target_modules)
        self.config = {"target_modules": modules, "task_type": TaskType.FEATURE_EXTRACTION.value}
        try:
            model = get_peft_model(bare, LoraConfig(r=collect.rank, lora_alpha=collect.alpha, **self.config))  # type: ignore[arg-type]
        except ValueError as error:
            found = f"found {collect.target_modules}: {first_line(error)}"
            raise UserError(f"params.yaml: collect.target_modules: {found}") from None
        draw_lora(model, collect.seed, collect.factors)
        self.layout = layout_of(model)
        self.start = lora_state(model, self.layout)
        self.trained = trained_part(self.layout, collect.factors)
        self.rows = [each for _, each in read_rows(data, "train").groupby("member")]
        self.count = len(self.rows)
        self.classifier = Classifier(base, self.layout, collect.alpha / collect.rank, task.finetune.max_length)

    def losses(self, members: Sequence[int], batch_size: int, seed: int, most: int | None = None) -> Losses:
        """As `ManyFinetuning` has it; on the first `most` rows of each member alone, if so asked."""
        rows = [self.rows[q].iloc[:most] for q in members]
        hidden = self.classifier.hidden([text for each in rows for text in each["text"]])
        labels = torch.tensor(np.concatenate([each["label"] for each in rows]), dtype=torch.int64, device=device())
        starts = np.cumsum([0, *(len(each) for each in rows[:-1])])

        def losses(theta: Tensor, step: int) -> Tensor:
            picked = []
            for q, start, each in zip(members, starts, rows, strict=True):
                order = np.random.default_rng([seed, q, step]).permutation(len(each))
                picked.append(start + np.resize(order, batch_size))
            chosen = torch.from_numpy(np.concatenate(picked)).to(device())
            found = F.cross_entropy(self.classifier(theta, hidden[chosen]), labels[chosen], reduction="none")
            return found.unflatten(0, (len(theta), -1)).mean(1)

        return losses
