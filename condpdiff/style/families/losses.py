"""A family of styles: the denoising losses of its members' LoRAs, of many at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condpdiff.common.files import read_rows
from condpdiff.common.hardware import device
from condpdiff.style import models
from condpdiff.style.task import Task
from condpdiff.zoo.checkpoints import Layout, layout_of
from condpdiff.zoo.collect import draw_lora, lora_state, trained_part
from condpdiff.zoo.many import Losses, ManyFinetuning
from condpdiff.zoo.placed import batched_loras
from condpdiff.zoo.settings import Collect


class Denoising:
    """The base model's denoising loss of S LoRAs at once, each on its own images."""

    def __init__(self, base: Path, layout: Layout, scale: float) -> None:
        """Args: scale: alpha / r."""
        self.layout, self.scale = layout, scale
        self.transformer = models.load_transformer(base).to(device())
        self.scheduler = models.load_scheduler(base)
        self.levels = len(self.scheduler.alphas_cumprod)

    def __call__(self, theta: Tensor, batch: models.Examples, noise: Tensor, timesteps: Tensor) -> Tensor:
        """theta [S, K], and S V examples of which V follow each other for each LoRA -> mean losses [S]."""
        with batched_loras(self.transformer, self.layout, self.scale, theta):
            errors = models.denoising_errors(self.transformer, self.scheduler, batch, noise, timesteps)
        return errors.unflatten(0, (len(theta), -1)).mean(1)


class Family(ManyFinetuning):
    """All members' training images, through their encoders once."""

    def __init__(self, task: Task, collect: Collect, data: Path, base: Path) -> None:
        """Raises a UserError if the data or the base can't be read, or it has no such target modules."""
        model = models.peft_transformer(base, collect.seed, collect.rank, collect.alpha, collect.target_modules)
        draw_lora(model, collect.seed, collect.factors)
        self.layout = layout_of(model)
        self.start = lora_state(model, self.layout)
        self.trained = trained_part(self.layout, collect.factors)
        placed: Any = model.peft_config["default"]
        self.config = {"target_modules": sorted(placed.target_modules), "task_type": None}
        del model  # before as much memory is taken again
        rows = read_rows(data, "train")
        self.examples = models.load_examples(base, rows).to(device())
        self.rows = [np.flatnonzero(rows["member"] == q) for q in range(int(rows["member"].max()) + 1)]
        self.count = len(self.rows)
        self.denoising = Denoising(base, self.layout, collect.alpha / collect.rank)

    def losses(self, members: Sequence[int], batch_size: int, seed: int) -> Losses:
        shape, where = (batch_size, *self.examples.latents.shape[1:]), device()

        def loss(theta: Tensor, step: int) -> Tensor:
            picked, noise, levels = [], [], []
            for q in members:
                rng = np.random.default_rng([seed, q, step])
                picked.append(np.resize(rng.permutation(self.rows[q]), batch_size))
                noise.append(rng.standard_normal(shape, dtype=np.float32))
                levels.append(rng.integers(self.denoising.levels, size=batch_size))
            rows, *drawn = (torch.from_numpy(np.concatenate(each)).to(where) for each in (picked, noise, levels))
            return self.denoising(theta, self.examples[rows], *drawn)

        return loss
