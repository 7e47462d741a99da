"""Scores LoRAs of a style: their denoising losses, the images that they make, and how far those are from the style's.

The loss selects (`select`: minus the loss); the figure that counts is the Fréchet distance to the validation images,
and lower is better. Generating is nearly the whole cost.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from condpdiff.common.files import read_rows
from condpdiff.evaluate import scorer
from condpdiff.evaluate.scorer import Candidate, Row, first, first_best
from condpdiff.evaluate.settings import Eval, Scoring
from condpdiff.style.metrics import Judge
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
from condpdiff.style.rows import Prompts, images, save_png
from condpdiff.style.task import Task
from condpdiff.zoo.checkpoints import Zoo, load_zoo

_GOLDEN = 0.6180339887498949  # its multiples spread evenly over 0..1, however many there are
SHOWN = 6
"""Images of an arm that are kept to be looked at."""
FLOOR_DRAWS = 3
PROBE = 8
"""Images whose loss tells whether a LoRA works at all."""


class Scorer(scorer.Scorer):
    """The base model of one style; scores vectors theta [K] on fixed images, and generates.

    Images are encoded and captions embedded once. Those of split `validation` are what generated ones are held against,
    and no loss is taken on them.
    """

    reference = "floor"
    validates_doses = False

    def __init__(self, base: Path, zoo: Zoo, task: Task, splits: Mapping[str, pd.DataFrame], tokens: int) -> None:
        """Args: tokens: latent patches a forward pass.

        Raises:
            UserError: base and zoo do not fit, or the base can't be read.
        """
        rows = {name: each for name, each in splits.items() if name != "validation"}
        super().__init__(load_transformer(base), zoo, task, {name: len(each) for name, each in rows.items()})
        self.base, self.validation = base, splits.get("validation", pd.DataFrame())
        config = self.model.config
        self.batch = max(1, tokens // (config.sample_size // config.patch_size) ** 2)
        """Images a forward pass."""
        self.scheduler = cast(Any, load_scheduler(base))
        examples = load_examples(base, rows) if rows else {}  # none, where images alone are asked for
        self.examples = {name: found.to(self.device) for name, found in examples.items()}
        levels = self.scheduler.config.num_train_timesteps
        shape = (config.in_channels, config.sample_size, config.sample_size)
        self.draws = {name: fixed_draws(each.index.tolist(), shape, levels) for name, each in rows.items()}
        vae = cast(Any, load_vae(base)).to(self.device)
        if self.device != "cpu":
            vae.enable_slicing()  # an image of 512 x 512 takes about a gigabyte to decode
        self.pipe = pipeline(base, self.model, vae)
        self.captions: dict[str, int] = {}
        self.embeddings, self.mask = torch.empty(0), torch.empty(0)  # [U, T, d], [U, T] of the captions generated for

    @cached_property
    def judge(self) -> Judge:
        """Holds images against the validation images."""
        return Judge(self.base, self.metrics, images(self.validation))

    @torch.inference_mode()
    def outputs(self, split: str) -> np.ndarray:
        """Denoising loss of each image [V] float64 as the transformer is merged now, in split order."""
        examples, (noise, timesteps) = self.examples[split], self.draws[split]
        found = []
        for rows in torch.arange(len(examples)).split(self.batch):
            drawn = noise[rows].to(self.device), timesteps[rows].to(self.device)
            found.append(denoising_errors(self.model, self.scheduler, examples[rows], *drawn))
        self.passes[split] += len(examples)
        return torch.cat(found).double().cpu().numpy()

    def losses_of(self, outputs: np.ndarray, split: str) -> np.ndarray:
        return outputs

    def select_score(self, outputs: np.ndarray) -> float:
        """Minus the mean loss."""
        mean = float(outputs.mean())
        return -mean if np.isfinite(mean) else float("nan")

    @torch.inference_mode()
    def generate(self, captions: Sequence[str], seeds: Sequence[int], steps: int, guidance: float) -> np.ndarray:
        """Images [n, H, W, 3] uint8 as the transformer is merged now, each of its own caption and seed."""
        self._embed(captions)
        rows = torch.tensor([self.captions[caption] for caption in captions])
        nothing = self.captions[""]
        empty = self.embeddings[nothing, None].to(self.device), self.mask[nothing, None].to(self.device)
        found = []
        starts = range(0, len(captions), self.batch)
        for start in tqdm(starts, desc="images", unit="batch", leave=False, disable=len(starts) < 2):
            some, mine = rows[start : start + self.batch], seeds[start : start + self.batch]
            embedded = self.embeddings[some].to(self.device), self.mask[some].to(self.device)
            bf16 = torch.autocast("cuda", torch.bfloat16, enabled=self.device != "cpu")
            with bf16, np.errstate(invalid="ignore"):  # a broken candidate's images, which are no numbers, turn black
                found.append(generate(self.pipe, *embedded, mine, steps, guidance, empty))
        self.passes["validation"] += len(captions)
        return np.concatenate(found)

    def make(self, prompts: Prompts, settings: Scoring) -> np.ndarray:
        """`generate` of prompts, as section `eval` says."""
        return self.generate(prompts.captions, prompts.seeds, settings.image_steps, settings.image_guidance)

    def _embed(self, captions: Sequence[str]) -> None:
        """Embed captions that are new, with the empty one, which guidance takes; the text encoder is not kept."""
        if not self.captions.keys() >= set(captions):
            known = sorted({"", *self.captions, *captions})
            self.embeddings, self.mask = embed_captions(self.base, known)
            self.captions = {caption: i for i, caption in enumerate(known)}

    def prompts(self, count: int) -> Prompts:
        """What every candidate generates: images of the validation images' captions."""
        return Prompts.of(self.validation["caption"].tolist(), count)

    def validate(self, settings: Scoring) -> tuple[dict[str, float], np.ndarray]:
        """Distances of what it makes of the prompts, lower is better; and the images to be looked at [SHOWN, H, W, 3].

        Meaningless of a transformer whose loss is no number: it makes black images, whose distance passes for one.
        """
        prompts = self.prompts(settings.images)
        made = self.make(prompts, settings)
        return self.judge.distances(made), made[prompts.spread(SHOWN)]

    def validation_rows(self, settings: Scoring) -> int:
        """Images generated."""
        return settings.images

    def references(self, train: pd.DataFrame, settings: Eval) -> list[Candidate]:
        """Draws of real training images in place of generated ones: what a perfect generator would get."""
        return [Candidate(0, float("nan"), self.judge.distances(real)) for real in floor_draws(train, settings)]

    def write(self, folder: Path, rows: Sequence[Row], settings: Scoring) -> None:
        """images.csv (arm, file, prompt, seed) and `images/<arm>/<number>.png`, each with its prompt and seed inside.

        Of each arm the first images of its selected candidate, and real ones of the same captions.
        """
        prompts = self.prompts(settings.images)
        kept = prompts.spread(SHOWN)
        shown = {"real": images(self.validation.iloc[[i % len(self.validation) for i in kept]])}
        for arm, candidates in groupby(rows, key=lambda row: row.arm):
            found = [row.found for row in candidates]
            made = found[first_best(np.array([each.select for each in found]))].made
            if made is not None:  # real images in place of generated ones
                shown[arm] = made
        write_images(folder, prompts.at(kept), shown)


def write_images(folder: Path, prompts: Prompts, shown: Mapping[str, np.ndarray]) -> None:
    """Each arm's images [n, H, W, 3] of the prompts; `real` ones have no seed."""
    rows = []
    for arm, pixels in shown.items():
        (folder / "images" / arm).mkdir(parents=True)
        for i, image in enumerate(pixels):
            file = f"images/{arm}/{i}.png"
            seed = None if arm == "real" else prompts.seeds[i]
            save_png(folder / file, image, prompt=prompts.captions[i], **({} if seed is None else {"seed": seed}))
            rows.append((arm, file, prompts.captions[i], seed))
    table = pd.DataFrame(rows, columns=["arm", "file", "prompt", "seed"]).astype({"seed": "Int64"})
    table.to_csv(folder / "images.csv", index=False)


class Panel(scorer.Panel):
    """Scores LoRAs on a style by the distance of what they generate; NaN: the loss is no number."""

    def __init__(self, name: str, task: Task, settings: Scoring, data: Path) -> None:
        validation, zoo = read_rows(data / "tasks" / name, "validation"), load_zoo(data / "zoo" / name, 1)
        rows = {"validation": validation, "probe": validation[:PROBE]}
        self.settings, self.scorer = settings, Scorer(data / "base", zoo, task, rows, settings.batch_tokens)

    def score(self, theta: Tensor) -> float:
        self.scorer.merge(theta)
        # A transformer whose loss is no number makes black images, whose distance would pass for one.
        works = bool(np.isfinite(self.scorer.losses("probe")).all())
        return first(self.scorer.validate(self.settings)[0]) if works else float("nan")


def floor_draws(train: pd.DataFrame, settings: Eval) -> list[np.ndarray]:
    """Disjoint draws of real training images, `FLOOR_DRAWS` of them or as many as there are images for.

    Each has as many images as a candidate generates. Where there are fewer training images than that, all of them are
    one draw.
    """
    order = np.random.default_rng(settings.seed).permutation(len(train))
    draws = max(1, min(FLOOR_DRAWS, len(train) // settings.images))
    chosen = order[: draws * settings.images]
    return [images(train.iloc[rows]) for rows in np.split(chosen, draws)]


def fixed_draws(rows: Sequence[int], shape: tuple[int, ...], levels: int) -> tuple[Tensor, Tensor]:
    """Noise [V, *shape] and noise levels [V] int64 for the rows of these numbers: the same whatever stands beside them.

    The levels of consecutive rows spread evenly over 0..levels-1.
    """
    noise = [np.random.default_rng(row).standard_normal(shape, dtype=np.float32) for row in rows]
    timesteps = [int(levels * ((row + 0.5) * _GOLDEN % 1)) for row in rows]
    return torch.from_numpy(np.stack(noise)), torch.tensor(timesteps)
