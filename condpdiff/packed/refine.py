"""What rows, pictures or a sentence of one's own make of generated LoRAs: the best, one trained on, what it answers."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from condpdiff.common.errors import UserError
from condpdiff.evaluate.arms import first_best
from condpdiff.evaluate.candidates import first
from condpdiff.packed.generator import Generator, Lora
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.normalized import load_frame

if TYPE_CHECKING:  # the domain's libraries take seconds
    from condpdiff.text.score import Scorer
    from condpdiff.text.task import Task

TOKENS = 512  # padded tokens a forward pass
HELD_OUT = 0.2  # share of the labelled rows that fine-tuning does not see, and its losses are taken on
RATING_SEED = 1_000_003  # of the draws that a style's LoRAs are rated on: training never drew them
DRAWS = 8  # batches of noise that a style's losses are the mean over
GENERATED, NO_LORA, TRAINED = "generated", "no LoRA", "Trained on"


def text_task(lora: Lora) -> "Task":
    """The text task whose head a LoRA has; raises a UserError if that is a family's, whose members have none."""
    from condpdiff.text.task import Task

    task = Task(**lora.config.tasks[lora.task.partition("/")[0]].settings)
    if task.members is not None:
        raise UserError(f"{lora.task}: found a member of a family, allowed: a task with a head of its own")
    return task


def scorer_of(lora: Lora, base: Path, splits: Mapping[str, pd.DataFrame]) -> "Scorer":
    """What scores text LoRAs with this one's head, on rows as `text.data.read_labelled` gives them."""
    from condpdiff.text.score import Scorer

    zoo = Zoo(lora.theta[None], lora.layout, lora.head, lora.config.lora.model_dump())
    return Scorer(base, zoo, text_task(lora), splits, TOKENS)


def select(loras: Sequence[Lora], rows: pd.DataFrame, base: Path) -> tuple[Lora, str]:
    """The best generated LoRA of one text task on rows as `text.data.read_labelled` gives them, and by how much it is.
    Raises UserError: the base does not fit.
    """
    scorer, scores = scorer_of(loras[0], base, {"select": rows}), []
    for lora in loras:
        scorer.merge(lora.theta)
        scores.append(first(scorer.score("select", scorer.predict("select"))))
    best = first_best(scores)
    better = (
        f"sample {best} of {len(loras)}: {scorer.metrics[0]} {scores[best]:.2f} on {len(rows)} rows, "
        f"{scores[best] - np.nanmean(scores):+.2f} against the mean of all"
    )
    return loras[best], better


def answers(generator: Generator, lora: Lora, base: Path, scale: float, text: str, pair: str) -> dict[str, Tensor]:
    """Probabilities [classes] of a sentence, or a value [1], of the task's head with no LoRA, the soup, and the LoRA.
    Raises a UserError if the task is of two sentences and there is one, or has no head of its own."""
    data = text_task(lora).data
    pairs = data.columns.text_pair is not None
    if pairs and not pair.strip():
        raise UserError("sentence: found one, allowed: two")
    texts = {"text": [" ".join(text.split())], "text_pair": [" ".join(pair.split()) if pairs else ""]}
    scorer = scorer_of(lora, base, {"asked": pd.DataFrame({**texts, "label": [0.0]})})
    soup, found = load_frame(generator.folder / "normalized", lora.task).soup, {}
    for name, theta in ((NO_LORA, None), (f"soup of {lora.task}", soup), (GENERATED, lora.scaled(scale))):
        scorer.merge(theta)
        output = torch.from_numpy(scorer.outputs("asked")[0])
        found[name] = output.softmax(0) if data.kind == "classification" else output
    return found


def train_on_rows(lora: Lora, rows: pd.DataFrame, base: Path, steps: int) -> tuple[Lora, str]:
    """Fine-tune a text LoRA and its head for 2 steps or more on labelled rows, as finetune-collect does.
    Gives the LoRA, and its loss before and after, in words; raises a UserError if the base does not fit."""
    from condpdiff.text.finetune import TextFinetuning
    from condpdiff.text.score import load_head
    from condpdiff.zoo.collect import train_from

    # One state, after so many steps.
    one = {"steps": steps - 1, "max_checkpoints": 1, "every": 1, "validate_every": steps}
    collect = lora.config.collect.model_copy(update=one)
    shuffled = rows.sample(frac=1, random_state=collect.seed).reset_index(drop=True)
    count = max(1, round(HELD_OUT * len(rows)))
    held_out, kept = shuffled[:count], shuffled[count:]
    with tempfile.TemporaryDirectory() as scratch:
        kept.to_parquet(Path(scratch) / "train.parquet", index=False)
        held_out.to_parquet(Path(scratch) / "validation.parquet", index=False)
        finetuning = TextFinetuning(lora.task, text_task(lora), collect, Path(scratch), base)
        theta, head = train_from(finetuning, lora.theta, lora.head)
    scorer, losses = scorer_of(lora, base, {"rows": held_out}), []
    for each, its in ((lora.theta, lora.head), (theta, head)):
        load_head(scorer.model, its)
        scorer.merge(each)
        losses.append(f"{scorer.losses('rows').mean():.4f}")
    trained = lora.with_theta(theta, head, **{TRAINED: f"{steps} steps of fine-tuning on {len(kept)} labelled rows"})
    return trained, f"{steps} steps: loss {' -> '.join(losses)} on {count} held-out rows"


def train_on_pictures(
    lora: Lora, pictures: np.ndarray, captions: Sequence[str], base: Path, steps: int
) -> tuple[Lora, str]:
    """The same of a style's LoRA, on pictures uint8 [n, H, W, 3] and their captions."""
    from condpdiff.style.families.losses import Family
    from condpdiff.style.images import encode_png
    from condpdiff.style.task import Task
    from condpdiff.zoo.many import finetune_many

    task = Task(**next(iter(lora.config.tasks.values())).settings)
    rows = pd.DataFrame({"member": 0, "caption": list(captions), "image": [encode_png(p) for p in pictures]})
    with tempfile.TemporaryDirectory() as scratch:
        rows.to_parquet(Path(scratch) / "train.parquet", index=False)
        family = Family(task, lora.config.collect, Path(scratch), base)
    finetune = task.finetune.model_copy(update={"steps": steps})
    rated, losses = (family.losses([0], finetune.batch_size, s) for s in (RATING_SEED, lora.config.collect.seed))
    start = lora.theta[None]
    theta = finetune_many(losses, start, family.trained, finetune, "fine-tuning")
    with torch.no_grad():
        before, after = (np.mean([rated(each, i).item() for i in range(DRAWS)]) for each in (start, theta))
    of = f"{len(pictures)} pictures"
    trained = lora.with_theta(theta[0], lora.head, **{TRAINED: f"{steps} steps of fine-tuning on {of}"})
    return trained, f"{steps} steps: loss {before:.4f} -> {after:.4f} on {of}"
