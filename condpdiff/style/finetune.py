"""Fine-tune a LoRA on one style: what `zoo.collect` asks of the style domain.

CONDPDIFF_CHECKPOINTING: `1` keeps each block's input alone and works the rest out again on the way back. Same weights,
less memory, about a third more time; like the variables of hardware.py it is no parameter of a run.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_json, read_rows
from condpdiff.common.hardware import device, rank, share
from condpdiff.common.task import TASKS
from condpdiff.style.families.losses import Family
from condpdiff.style.metrics import weights_file
from condpdiff.style.models import (
    PARTS,
    Examples,
    denoising_errors,
    image_size,
    load_examples,
    load_scheduler,
    peft_transformer,
)
from condpdiff.style.task import Task
from condpdiff.zoo.collect import BatchLoss, Finetuning, collect_zoo
from condpdiff.zoo.many import collect_many
from condpdiff.zoo.settings import Collect

CHECKPOINTING = "CONDPDIFF_CHECKPOINTING"
VALIDATION_BATCH = 64


def finetune(name: str, task: Task, collect: Collect, data: Path, base: Path, out: Path) -> None:
    """Fine-tune on one style and write its zoo folder; an interrupted run goes on from its last resume point.

    Raises:
        UserError: the data can't be read, or is of another size than the base model's; the model has no such target
            modules; the processes can't share a batch.
    """
    if task.members is not None:
        _check_base(name, task, base)
        collect_many(Family(task, collect, data, base), name, task.finetune, collect, out)
    else:
        collect_zoo(StyleFinetuning(name, task, collect, data, base), out)


class DenoisingLoss(BatchLoss):
    """Mean denoising loss."""

    def __init__(self, model: PeftModel, scheduler: Any) -> None:
        super().__init__(model)
        self.scheduler = scheduler

    def forward(
        self, latents: Tensor, caption: Tensor, embeddings: Tensor, mask: Tensor, noise: Tensor, timesteps: Tensor
    ) -> Tensor:
        """What `Examples` holds, and what `denoising_errors` takes beside them -> the mean loss."""
        examples = Examples(latents, caption, embeddings, mask)
        return denoising_errors(self.model, self.scheduler, examples, noise, timesteps).mean()


class StyleFinetuning(Finetuning[Task]):
    """Images of one style, through their encoders once; a step's images, noise and noise levels are drawn by number."""

    def __init__(self, name: str, task: Task, collect: Collect, data: Path, base: Path) -> None:
        """Raises as `finetune`; before the long work also of what the zoo is for."""
        super().__init__(name, task, collect)
        self.base = base
        _check_base(name, task, base)
        examples = load_examples(base, {split: read_rows(data, split) for split in ("train", "validation")})
        self.train, self.validation = (examples[split].to(device()) for split in ("train", "validation"))
        self.scheduler = load_scheduler(base)
        model = (path for part in PARTS for path in sorted((base / part).iterdir()) if path.is_file())
        self.files = [data / "train.parquet", data / "validation.parquet", *model]

    def start(self) -> BatchLoss:
        c = self.collect
        model = peft_transformer(self.base, c.seed, c.rank, c.alpha, c.target_modules)
        model.to(device()).eval()  # the weights beside the LoRA are frozen: nothing is dropped out
        if os.environ.get(CHECKPOINTING) == "1":
            model.get_base_model().enable_gradient_checkpointing()  # type: ignore[operator]  # to mypy, a Tensor
        return DenoisingLoss(model, self.scheduler)

    def batches(self) -> Callable[[int], tuple[Any, ...]]:
        size, seed, where = self.task.finetune.batch_size, self.collect.seed, device()
        order = image_order(len(self.train), size, self.steps, seed)
        mine = slice(rank() * share(size), (rank() + 1) * share(size))

        def batch(step: int) -> tuple[Any, ...]:
            rng = np.random.default_rng([seed, 1 + step])
            noise = rng.standard_normal((size, *self.train.latents.shape[1:]), dtype=np.float32)
            timesteps = rng.integers(self.scheduler.config.num_train_timesteps, size=size)  # type: ignore[attr-defined]
            chosen = self.train[torch.from_numpy(order[step, mine]).to(where)]
            drawn = (torch.from_numpy(values[mine]).to(where) for values in (noise, timesteps))
            return chosen.latents, chosen.caption, chosen.embeddings, chosen.mask, *drawn

        return batch

    def score(self, model: PeftModel) -> float:
        """Minus the mean denoising loss."""
        return -validation_loss(model, self.scheduler, self.validation)

    def verdict(self, scores: list[tuple[int, float]]) -> tuple[str, str | None]:
        bare, last = -scores[0][1], -scores[-1][1]
        said = f"denoising loss {last:.4f} after the last step, {bare:.4f} without a LoRA"
        return said, None if last < bare else "no LoRA"


def image_order(count: int, batch_size: int, steps: int, seed: int) -> np.ndarray:
    """Image indices [steps, batch_size] of a whole run: one random order of all images after another."""
    rng = np.random.default_rng([seed, 0])
    passes = -(-steps * batch_size // count)
    order = np.concatenate([rng.permutation(count) for _ in range(passes)])
    return order[: steps * batch_size].reshape(steps, batch_size)


@torch.no_grad()
def validation_loss(model: nn.Module, scheduler: Any, examples: Examples) -> float:
    """Mean denoising loss at evenly spaced noise levels, with the same noise for every state of every run."""
    noise = torch.randn(examples.latents.shape, generator=torch.Generator().manual_seed(0)).to(device())
    last = scheduler.config.num_train_timesteps - 1
    timesteps = torch.linspace(0, last, len(examples)).round().long().to(device())
    parts = torch.arange(len(examples), device=device()).split(VALIDATION_BATCH)
    errors = [denoising_errors(model, scheduler, examples[rows], noise[rows], timesteps[rows]) for rows in parts]
    return float(torch.cat(errors).double().mean())


def _check_base(name: str, task: Task, base: Path) -> None:
    """Raise a UserError if the base model makes images of another size, or has no network for a metric."""
    allowed = image_size(read_json(base / "transformer/config.json"), read_json(base / "vae/config.json"))
    if task.data.size != allowed:
        key = f"{TASKS / name}.yaml: data.size"
        raise UserError(f"{key}: found {task.data.size}, allowed: {allowed}, as the base model makes images")
    for metric in task.metrics:
        weights_file(base, metric)
