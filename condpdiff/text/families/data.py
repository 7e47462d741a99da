"""A family of text tasks, made ready: the rows of all its members, and the texts that tell of each."""

from pathlib import Path

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.common.splits import save_splits
from condpdiff.common.task import FAMILIES, Data
from condpdiff.text.conditions import two_shots
from condpdiff.text.families.wordnet import Topic, read_nouns, topics
from condpdiff.text.task import Task, WordnetSource

NO, YES = 0.0, 1.0


def prepare_family(name: str, task: Task, limits: Data, out: Path) -> None:
    """Write the rows of all members, columns `member`, `text`, `text_pair`, `label`; of a member no text stands twice.

    train        what a member's own LoRA is trained on: yes and no in turn
    held_out     rows that tell of the member, where its condition shows examples
    validation   what every arm is scored on

    Raises:
        UserError: the package can't be had; there are fewer members, or fewer texts of one, than asked for.
    """
    where, source, condition = f"{FAMILIES / name}.yaml", task.data.source, task.condition
    assert isinstance(source, WordnetSource) and task.members is not None
    sizes = {"train": limits.max_train - limits.held_out, "held_out": limits.held_out}
    sizes["validation"] = limits.max_validation
    nouns = read_nouns(f"{where}: data.source")
    rows: dict[str, list[pd.DataFrame]] = {split: [] for split in sizes}
    members = []
    for q, topic in enumerate(topics(nouns, source.tier, task.members, source.seed, f"{where}: members")):
        texts = iter(_rows(topic, sum(sizes.values()), [source.seed, limits.seed, q], where))
        for split, size in sizes.items():
            frame = pd.DataFrame([next(texts) for _ in range(size)], columns=["text", "label"])
            rows[split].append(frame.assign(member=q, text_pair=""))
        told = {"noun": topic.noun.name, "gloss": topic.noun.gloss}
        infos = [text.format(**told) for text in (condition.description, *condition.paraphrases)]
        examples = two_shots(task, rows["held_out"][-1])
        members.append({**told, "task_info": infos, "few_shot": examples})
    save_splits(out, {split: pd.concat(each, ignore_index=True) for split, each in rows.items()}, {"members": members})
    print(f"{name}: {len(members)} tasks, " + ", ".join(f"{split} {size} rows each" for split, size in sizes.items()))


def _rows(topic: Topic, count: int, seed: list[int], where: str) -> list[tuple[str, float]]:
    """Texts and labels of one member: every second one yes; of the no ones every second one of X's siblings.

    Raises:
        UserError: there are fewer texts of its kind than that takes.
    """
    rng, half = np.random.default_rng(seed), (count + 1) // 2
    needed = {"yes": half, "siblings": half // 2, "others": half - half // 2}
    found = {}
    for part, size in needed.items():
        texts = getattr(topic, part)
        if len(texts) < size:
            raise UserError(
                f"{where}: {topic.noun.name!r} has {len(texts)} texts of {part}, allowed: at least {size} "
                f"(params.yaml: data.max_train and data.max_validation ask for {count} rows)"
            )
        found[part] = [texts[i] for i in rng.permutation(len(texts))[:size]]
    no = [text for two in zip(found["others"], found["siblings"], strict=False) for text in two]
    no += found["others"][len(found["siblings"]) :]
    return [pair for yes, other in zip(found["yes"], no, strict=True) for pair in ((yes, YES), (other, NO))]
