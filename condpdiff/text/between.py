"""Between two text tasks: conditions that training never drew, and scores on both tasks."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from condpdiff.common.files import read_json
from condpdiff.evaluate.interpolation import SCORES, Point, Scoring
from condpdiff.text.conditions import DESCRIPTION, condition_texts, two_shots
from condpdiff.text.probe import load_score
from condpdiff.text.rows import read_rows
from condpdiff.text.task import Task


def unseen_inputs(task: Task, folder: Path, kind: str) -> dict[str, list[str]]:
    """Conditions of the task that training never drew, as the kind of condition has them, by what is new in them.

    `unseen_wording`: the task file's `condition.unseen` beside the examples that training drew. `unseen_examples`: its
    descriptions beside two-shot draws of another seed. What the kind or the task's file does not have is left out.

    Args:
        folder: the task's prepared rows.
    """
    parts = read_json(folder / DESCRIPTION)
    few_shot = task.condition.few_shot
    other = few_shot.model_copy(update={"seed": few_shot.seed + 1})
    redrawn = task.model_copy(update={"condition": task.condition.model_copy(update={"few_shot": other})})
    new = {
        "unseen_wording": {"task_info": task.condition.unseen},
        "unseen_examples": {"few_shot": two_shots(redrawn, read_rows(folder, "train"))},
    }
    seen = set(condition_texts(kind, parts))
    found = {name: [t for t in condition_texts(kind, parts | part) if t not in seen] for name, part in new.items()}
    return {name: texts for name, texts in found.items() if texts}


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
