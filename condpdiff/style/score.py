"""Merge a LoRA into the transformer, W = W0 + (alpha / r) B A, and score it: its losses, and the images it makes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from condpdiff.common.errors import UserError
from condpdiff.common.hardware import device
from condpdiff.style.models import (
    denoising_errors,
    embed_captions,
    generate,
    load_examples,
    load_scheduler,
    load_transformer,
    load_vae,
    pipeline,
)
from condpdiff.style.task import Task
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.layout import unflatten

_PREFIX = "base_model.model."
_GOLDEN = 0.6180339887498949  # its multiples spread evenly over 0..1, however many there are


class Scorer:
    """The base model of one style; scores vectors theta [K] on fixed images, and generates.

    Images are encoded and captions embedded once. A candidate costs its merge and its forward passes.
    """

    def __init__(self, base: Path, zoo: Zoo, task: Task, splits: dict[str, pd.DataFrame], tokens: int) -> None:
        self.base, self.task, self.layout = base, task, zoo.layout
        self.scale = zoo.config["alpha"] / zoo.config["rank"]
        self.device = device()
        # To mypy, diffusers' classes have neither methods nor attributes.
        self.transformer = cast(Any, load_transformer(base)).to(self.device)
        self.modules = merge_targets(self.transformer, zoo)
        self.base_weights = {name: module.weight.clone() for name, module in self.modules.items()}
        config = self.transformer.config
        self.batch = max(1, tokens // (config.sample_size // config.patch_size) ** 2)
        """Images a forward pass."""
        self.scheduler = cast(Any, load_scheduler(base))
        examples = load_examples(base, splits) if splits else {}  # none, where images alone are asked for
        self.examples = {name: found.to(self.device) for name, found in examples.items()}
        levels = self.scheduler.config.num_train_timesteps
        shape = (config.in_channels, config.sample_size, config.sample_size)
        self.draws = {name: fixed_draws(rows.index.tolist(), shape, levels) for name, rows in splits.items()}
        vae = cast(Any, load_vae(base)).to(self.device)
        if self.device != "cpu":
            vae.enable_slicing()  # an image of 512 x 512 takes about a gigabyte to decode
        self.pipe = pipeline(base, self.transformer, vae)
        self.captions: dict[str, int] = {}
        self.embeddings, self.mask = torch.empty(0), torch.empty(0)  # [U, T, d], [U, T] of the captions generated for
        self.passes: Counter[str] = Counter()
        """Images that went through the transformer so far, by split; `images`: that were generated."""

    def merge(self, theta: Tensor | None) -> None:
        """Set the transformer's weights to W0 + (alpha / r) B A; None restores W0 (no LoRA)."""
        tensors = {} if theta is None else unflatten(theta.to(self.device), self.layout)
        for name, module in self.modules.items():
            weight = self.base_weights[name]
            if theta is not None:
                a = tensors[f"{_PREFIX}{name}.lora_A.weight"]  # [r, in]
                b = tensors[f"{_PREFIX}{name}.lora_B.weight"]  # [out, r]
                weight = torch.addmm(weight, b, a, alpha=self.scale)
            module.weight.data.copy_(weight)

    @torch.inference_mode()
    def losses(self, split: str) -> np.ndarray:
        """Denoising loss of each image [V] float64 as the transformer is merged now, in split order."""
        examples, (noise, timesteps) = self.examples[split], self.draws[split]
        found = []
        for rows in torch.arange(len(examples)).split(self.batch):
            drawn = noise[rows].to(self.device), timesteps[rows].to(self.device)
            found.append(denoising_errors(self.transformer, self.scheduler, examples[rows], *drawn))
        self.passes[split] += len(examples)
        return torch.cat(found).double().cpu().numpy()

    @torch.inference_mode()
    def generate(
        self, captions: Sequence[str], seeds: Sequence[int], steps: int, guidance: float, what: str = "images"
    ) -> np.ndarray:
        """Images [n, H, W, 3] uint8 as the transformer is merged now, each of its own caption and seed."""
        self._embed(captions)
        rows = torch.tensor([self.captions[caption] for caption in captions])
        nothing = self.captions[""]
        empty = self.embeddings[nothing, None].to(self.device), self.mask[nothing, None].to(self.device)
        found = []
        starts = range(0, len(captions), self.batch)
        for start in tqdm(starts, desc=what, unit="batch", leave=False, disable=len(starts) < 2):
            some = rows[start : start + self.batch]
            embedded = self.embeddings[some].to(self.device), self.mask[some].to(self.device)
            mine = seeds[start : start + self.batch]
            bf16 = torch.autocast("cuda", torch.bfloat16, enabled=self.device != "cpu")
            with bf16, np.errstate(invalid="ignore"):  # a broken candidate's images, which are no numbers, turn black
                found.append(generate(self.pipe, *embedded, mine, steps, guidance, empty))
        self.passes["images"] += len(captions)
        return np.concatenate(found)

    def _embed(self, captions: Sequence[str]) -> None:
        """Embed captions that are new, with the empty one, which guidance takes; the text encoder is not kept."""
        if not self.captions.keys() >= set(captions):
            known = sorted({"", *self.captions, *captions})
            self.embeddings, self.mask = embed_captions(self.base, known)
            self.captions = {caption: i for i, caption in enumerate(known)}


def fixed_draws(rows: Sequence[int], shape: tuple[int, ...], levels: int) -> tuple[Tensor, Tensor]:
    """Noise [V, *shape] and noise levels [V] int64 for the rows of these numbers: the same whatever stands beside them.

    The levels of consecutive rows spread evenly over 0..levels-1.
    """
    noise = [np.random.default_rng(row).standard_normal(shape, dtype=np.float32) for row in rows]
    timesteps = [int(levels * ((row + 0.5) * _GOLDEN % 1)) for row in rows]
    return torch.from_numpy(np.stack(noise)), torch.tensor(timesteps)


def merge_targets(transformer: nn.Module, zoo: Zoo) -> dict[str, nn.Linear]:
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
            module = transformer.get_submodule(name)
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
