"""What labelled rows or pictures of one's own make of generated LoRAs: the best of them, and one that is trained on."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from condpdiff.common.errors import UserError
from condpdiff.packed.config import Config
from condpdiff.packed.lora import Lora
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.settings import Collect

if TYPE_CHECKING:  # the domain's libraries take seconds
    from condpdiff.text.task import Task

TOKENS = 512
"""Padded tokens a forward pass."""
HELD_OUT = 0.2
"""Share of the labelled rows that fine-tuning does not see, and its losses are taken on."""
DRAWS = 8
"""Batches of noise that a style's losses are the mean over."""


@dataclass(frozen=True)
class Chosen:
    """The winner of a race on labelled rows."""

    index: int
    metric: str
    best: float
    """Its score on all rows, in percent."""
    others: float
    """Mean score of all samples on all rows, or of those that stayed to the end of the race."""
    passes: int
    """Rows that went through the model; without the race it would have been `full`."""
    full: int


def select(loras: Sequence[Lora], rows: pd.DataFrame, base: Path, seed: int = 0, z: float = 1.0) -> Chosen:
    """Race generated LoRAs of one text task on labelled rows (`evaluate.racing`).

    Args:
        rows: columns text, text_pair, label (class index, or value), as `text.data.read_labelled` gives them.
        base: folder of the base model.
        z: standard errors within which a sample of the worse half stays.

    Raises:
        UserError: base and LoRAs do not fit.
    """
    from condpdiff.evaluate import racing
    from condpdiff.text.score import Scorer

    shuffled = rows.sample(frac=1, random_state=seed).reset_index(drop=True)
    splits = {"select": shuffled, **racing.parts("select", shuffled)}
    one, task = loras[0], text_task(loras[0])
    scorer = Scorer(base, zoo_of(one), task, splits, TOKENS)
    seen = racing.race(scorer, torch.stack([lora.theta for lora in loras]), "select", z, "select")
    scores = [scorer.select_score(made) if len(made) == len(rows) else np.nan for made in seen]
    best = int(np.nanargmax(scores))
    passes = sum(scorer.passes.values())
    metric = str(task.metrics[0])
    everyone = float(np.nanmean(scores))
    return Chosen(best, metric, scores[best], everyone, passes, len(loras) * len(rows))


@dataclass(frozen=True)
class Trained:
    """A LoRA that was trained on, and its loss before and after."""

    lora: Lora
    before: float
    after: float
    rows: int
    """Rows, or pictures, that the losses are the mean over."""


def train_on_rows(lora: Lora, rows: pd.DataFrame, base: Path, steps: int) -> Trained:
    """Fine-tune a text LoRA and its head for some steps on labelled rows, as finetune-collect does.

    Raises:
        UserError: fewer than 2 steps; base and LoRA do not fit.
    """
    from condpdiff.text.finetune import TextFinetuning
    from condpdiff.text.score import Scorer, load_head
    from condpdiff.zoo.collect import train_from

    check_steps(steps)
    task, collect = text_task(lora), _collect(lora.config, steps)
    shuffled = rows.sample(frac=1, random_state=collect.seed).reset_index(drop=True)
    held_out = max(1, round(HELD_OUT * len(rows)))
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch)
        shuffled[held_out:].to_parquet(data / "train.parquet", index=False)
        shuffled[:held_out].to_parquet(data / "validation.parquet", index=False)
        finetuning = TextFinetuning(lora.task, task, collect, data, base)
        theta, head = train_from(finetuning, lora.theta, lora.head)
    scorer, found = Scorer(base, zoo_of(lora), task, {"rows": shuffled[:held_out]}, TOKENS), []
    for each, its in ((lora.theta, lora.head), (theta, head)):
        load_head(scorer.model, its)
        scorer.merge(each)
        found.append(float(scorer.losses("rows").mean()))
    trained = lora.with_theta(theta, head, **_how(steps, f"{len(rows) - held_out} labelled rows"))
    return Trained(trained, found[0], found[1], held_out)


def train_on_pictures(lora: Lora, pictures: np.ndarray, captions: Sequence[str], base: Path, steps: int) -> Trained:
    """Fine-tune a style's LoRA for some steps on pictures uint8 [n, H, W, 3], as finetune-collect does.

    Args:
        captions: of each picture.

    Raises:
        UserError: base and LoRA do not fit.
    """
    from condpdiff.style.families.losses import Family
    from condpdiff.style.images import encode_png
    from condpdiff.style.task import Task
    from condpdiff.zoo.many import RATING_SEED, finetune_many

    check_steps(steps)
    settings = next(iter(lora.config.tasks.values())).settings
    task = Task(**settings)
    rows = pd.DataFrame({"member": 0, "caption": list(captions), "image": [encode_png(p) for p in pictures]})
    with tempfile.TemporaryDirectory() as scratch:
        rows.to_parquet(Path(scratch) / "train.parquet", index=False)
        family = Family(task, lora.config.collect, Path(scratch), base)
    size = task.finetune.batch_size
    rated = family.losses([0], size, RATING_SEED)

    @torch.no_grad()
    def loss(theta: Tensor) -> float:
        return float(np.mean([rated(theta, step).item() for step in range(DRAWS)]))

    finetune = task.finetune.model_copy(update={"steps": steps})
    losses = family.losses([0], size, lora.config.collect.seed)
    theta = finetune_many(losses, lora.theta[None], family.trained, finetune, "fine-tuning")
    trained = lora.with_theta(theta[0], lora.head, **_how(steps, f"{len(pictures)} pictures"))
    return Trained(trained, loss(lora.theta[None]), loss(theta), len(pictures))


def check_steps(steps: int) -> None:
    """Raise a UserError unless so many steps can be trained."""
    if steps < 2:
        raise UserError(f"steps: found {steps}, allowed: at least 2")


def _how(steps: int, what: str) -> dict[str, str]:
    return {"Trained on": f"{steps} steps of fine-tuning on {what}"}


def text_task(lora: Lora) -> "Task":
    """The text task whose head a LoRA has."""
    from condpdiff.text.task import Task

    settings = lora.config.tasks[lora.task.partition("/")[0]].settings
    if settings.get("members") is not None:
        raise UserError(f"{lora.task}: found a member of a family, allowed: a task with a head of its own")
    return Task(**settings)


def zoo_of(lora: Lora) -> Zoo:
    """A LoRA as a zoo of one, which scorers take."""
    return Zoo(lora.theta[None], lora.layout, lora.head, lora.config.lora.model_dump())


def _collect(config: Config, steps: int) -> Collect:
    """One state, after so many steps."""
    one = {"steps": steps - 1, "max_checkpoints": 1, "every": 1, "validate_every": steps}
    return config.collect.model_copy(update=one)
