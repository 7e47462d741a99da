"""Between two text tasks: conditions that training never drew, and scores on both tasks."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from condpdiff.interpolation import SCORES, Point, Scoring
from condpdiff.text.description import condition_texts, describe, inputs
from condpdiff.text.probe import load_score
from condpdiff.text.rows import read_rows
from condpdiff.text.task import Task


def unseen_inputs(task: Task, folder: Path, kind: str) -> list[str]:
    """The task's descriptions beside two-shot draws of another seed, as the kind of condition has them.

    None for kinds without examples, and where the task's file fixes them.

    Args:
        folder: the task's prepared rows.
    """
    few_shot = task.condition.few_shot
    other = few_shot.model_copy(update={"seed": few_shot.seed + 1})
    redrawn = task.model_copy(update={"condition": task.condition.model_copy(update={"few_shot": other})})
    seen = set(inputs(folder, kind))
    found = condition_texts(kind, describe(redrawn, read_rows(folder, "train"))) if seen else []
    return [text for text in found if text not in seen]


def score_between(
    points: Sequence[Point], tasks: dict[str, Task], settings: Scoring, data: Path, zoos: Path, base: Path, out: Path
) -> pd.DataFrame:
    """Score every LoRA on the validation rows of both tasks, each with its own head.

    Args:
        data: folder of the prepared tasks.
        zoos: folder of the tasks' zoos.
        out: where domains that have more than scores write it.

    Returns:
        kind, lambda, sample, task, score (the task's first metric, in percent).
    """
    rows = []
    for name, task in tasks.items():
        score = load_score(name, task, settings, data, zoos, base)
        for point in tqdm(points, desc=f"scores on {name}", unit="point"):
            rows += [(point.kind, point.at, sample, name, score(theta)) for sample, theta in enumerate(point.theta)]
    return pd.DataFrame(rows, columns=SCORES)
