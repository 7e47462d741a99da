"""What tells the generator about a text task: descriptions and two-shot examples."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from condpdiff.common.files import read_json
from condpdiff.common.splits import DESCRIPTION
from condpdiff.text.task import Task, TaskData

_EXAMPLE = re.compile(r"\A(Input: |Example: )(.*?)( Output: (?!.* Output: ).*|)\Z")
"""A line of a condition, as `example_line` and a language model's draws have it: the beginning, the text, the label."""
NONSENSE = {  # words at random, in the shape of what `conditions.describe` gives
    "task_info": [
        "Lantern seven the marble under quickly bicycle of which tuesday grows.",
        "Copper because an umbrella fourteen whisper fence, north to spoon.",
        "Violin gravel into ate perhaps window less than oblong harbour.",
    ],
    "few_shot": [
        "Input: ladder green of seldom biscuit Output: hinge\nInput: eleven river carpet whose Output: plum",
        "Input: the anchor slowly pepper by candle Output: tin\nInput: button over wool Output: Wednesday",
    ],
}


def describe(task: Task, train: pd.DataFrame) -> dict[str, list[str]]:
    """All descriptions of a task (`task_info`) and all its two-shot texts (`few_shot`), drawn from training rows."""
    infos = [task.condition.description, *task.condition.paraphrases]
    return {"task_info": infos, "few_shot": two_shots(task, train)}


def inputs(folder: Path, kind: str) -> list[str]:
    """The texts of a prepared task, or a member `<family>/<q>`, under a kind of condition; none where it reads none."""
    if folder.is_dir():
        return condition_texts(kind, read_json(folder / DESCRIPTION))
    return condition_texts(kind, read_json(folder.parent / DESCRIPTION)["members"][int(folder.name)])


def condition_texts(kind: str, parts: dict[str, list[str]]) -> list[str]:
    """All texts of a task: every description, every two-shot draw, or every pair of them."""
    if kind == "task_info_few_shot":
        return [f"{info}\n{shots}" for info in parts["task_info"] for shots in parts["few_shot"]]
    return parts.get(kind, [])


def nonsense_inputs(kind: str) -> list[str]:
    """Texts of no task, as a kind of condition has them; none for kinds that read no text."""
    return condition_texts(kind, NONSENSE)


def shown(text: str) -> str:
    """An input in words."""
    return text


def two_shots(task: Task, train: pd.DataFrame) -> list[str]:
    """Two labelled examples a text: fixed by the task file, or drawn from the training rows, of two different classes
    or of the lower and the upper half of ratings, so that they show what the labels mean."""
    few_shot = task.condition.few_shot
    if few_shot.examples:
        return ["\n".join(example_line(text, label) for text, label in few_shot.examples)]
    rng = np.random.default_rng(few_shot.seed)
    if task.data.kind == "language":
        draws = [rng.choice(len(train), size=2, replace=False) for _ in range(few_shot.draws)]
        return ["\n".join(f"Example: {text}" for text in train["text"].iloc[draw]) for draw in draws]
    groups = train["label"]
    if not task.data.labels:  # above the median, or at it where it is the largest rating, so that no half is empty
        middle = groups.median()
        groups = groups > middle if middle < groups.max() else groups >= middle
    by_group = [train[groups == value] for value in np.unique(groups)]
    found = []
    for _ in range(few_shot.draws):
        two = rng.choice(len(by_group), size=2, replace=False)
        rows = [by_group[g].iloc[int(rng.integers(len(by_group[g])))] for g in two]
        found.append("\n".join(_example(task.data, row) for row in rows))
    return found


def fit(text: str, tokens: Callable[[str], int], most: int) -> str:
    """A condition as it is, or with its examples cut in their middle where an encoder would not read to its end.

    Descriptions and labels stay whole; of a pair both texts are seen, by the beginning of one and the end of the other.
    Args: tokens: how many an encoder makes of a text; most: how many it reads.
    """
    lines = text.split("\n")
    if tokens(text) <= most or not any(_EXAMPLE.fullmatch(line) for line in lines):
        return text

    def cut_to(width: int) -> str:
        return "\n".join(_EXAMPLE.sub(lambda m: f"{m[1]}{_shortened(m[2], width)}{m[3]}", line) for line in lines)

    low, high = 0, len(text)  # the longest texts that fit, in characters, by bisection
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tokens(cut_to(middle)) <= most else (low, middle)
    return cut_to(low)


def _shortened(text: str, width: int) -> str:
    """The beginning and the end of a text, of whole words where it has spaces there."""
    if len(text) <= width:
        return text
    head, tail = text[: (width + 1) // 2], text[len(text) - width // 2 :]
    return f"{head.rpartition(' ')[0] or head} … {tail.partition(' ')[2] or tail}".strip()


def _example(data: TaskData, row: pd.Series) -> str:
    text = f"{row['text']} / {row['text_pair']}" if row["text_pair"] else row["text"]
    return example_line(text, data.labels[int(row["label"])] if data.labels else f"{row['label']:.1f}")


def example_line(text: str, label: str | float) -> str:
    """One labelled example as a condition has it."""
    return f"Input: {text} Output: {label}"
