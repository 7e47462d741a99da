"""merge-eval of a family of text tasks: every arm's LoRAs on each member's validation rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from condpdiff.common.files import read_rows
from condpdiff.common.task import number
from condpdiff.diffusion.conditions import projected
from condpdiff.evaluate.family import FamilyEvaluation, Run
from condpdiff.text.conditions import inputs
from condpdiff.text.encoder import load_encoder
from condpdiff.text.families.losses import CARD, TASK_TYPE, Family
from condpdiff.text.nonsense import nonsense_inputs
from condpdiff.text.task import Task
from condpdiff.text.unseen.score import Judge, accuracy, best_threshold, classifier_accuracy, cosines
from condpdiff.zoo.many import finetune_many

LABELLED, FEW_STEPS = (16, 64), 20
"""Labelled rows, on which a classifier is trained, and LoRAs in so many steps."""


class Evaluation(FamilyEvaluation):
    """Of each arm the accuracy in percent on validation rows, and on the `held_out` rows that tell of a member."""

    best, warm = ("held_out", True), ("ridge",)
    task_type, card = TASK_TYPE, CARD
    task: Task
    family: Family

    def __init__(self, name: str, task: Task, data: Path, run: Run) -> None:
        self.folder, family = data / "tasks" / name, Family(task, run.collect, data / "tasks" / name, data / "base")
        frames = {split: read_rows(self.folder, split) for split in ("train", "held_out", "validation")}
        self.frames = {k: [each for _, each in frame.groupby("member")] for k, frame in frames.items()}
        super().__init__(name, task, data, run, family)

    def turn_to(self, names: Sequence[str], tiers: Sequence[str]) -> None:
        """With their rows."""
        super().turn_to(names, tiers)
        self.mine = {split: [frames[q] for q in self.numbers] for split, frames in self.frames.items()}
        self.judges = {k: Judge(self.family.classifier, self.mine[k]) for k in ("held_out", "validation")}

    def scores(self, arm: str, theta: Tensor, sample: int) -> list[dict[str, float]]:
        """Accuracies."""
        found = zip(self.judges["held_out"](theta), self.judges["validation"](theta), strict=True)
        return [{"held_out": one, "accuracy": other} for one, other in found]

    def other_conditions(self) -> Mapping[str, Tensor]:
        """Texts that mean nothing."""
        condition = self.run.condition
        encode = projected(load_encoder(condition), condition, self.data)
        y = encode(nonsense_inputs(condition.kind))
        return {"noise": y[torch.arange(len(self.names)) % len(y)]}

    def more(self, folder: Path) -> None:
        """Cosine of text and description, and logistic regression on embeddings, by the condition's encoder."""
        encode = load_encoder(self.run.condition)

        def texts(rows: Sequence[pd.DataFrame]) -> Tensor:
            return torch.stack([encode(each["text"].tolist()) for each in rows])  # [M, V, d]

        def told(names: Sequence[str]) -> Tensor:
            return torch.stack([encode(inputs(self.data / "tasks" / name, "task_info")).mean(0) for name in names])

        known = [(self.data / "tasks" / name.partition("/")[0], number(name)) for name in self.trained_on]
        frames = {folder: read_rows(folder, "held_out") for folder, _ in known}
        rows = [frames[folder][frames[folder]["member"] == q] for folder, q in known]
        threshold = best_threshold(cosines(texts(rows), told(self.trained_on)), np.stack([e["label"] for e in rows]))
        scored, true = texts(self.mine["validation"]), self.judges["validation"].labels
        self._note("cosine", accuracy(cosines(scored, told(self.names)) > threshold, true))
        train = texts([each.iloc[: max(LABELLED)] for each in self.mine["train"]])
        labels = np.stack([each["label"].iloc[: max(LABELLED)] for each in self.mine["train"]])
        for n in LABELLED:
            self._note(f"classifier@{n}", classifier_accuracy(train[:, :n], labels[:, :n], scored, true))

    def starts(self) -> None:
        """Beside the others, LoRAs from nothing and from condpdiff on few labelled rows."""
        super().starts()
        finetune = self.task.finetune.model_copy(update={"steps": FEW_STEPS})
        for n in LABELLED:
            losses = self.family.losses(self.numbers, finetune.batch_size, self.run.eval.seed, most=n)
            for start, theta in {"zero": self._nothing(), "condpdiff": self.generated(self.y)}.items():
                tuned = finetune_many(losses, theta, self.family.trained, finetune, f"{start}, {n} rows")
                self.record(f"{start}@{n}", tuned)

    def _note(self, arm: str, found: np.ndarray) -> None:
        self.note(arm, [{"accuracy": value} for value in found])
