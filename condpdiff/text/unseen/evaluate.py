"""merge-eval of a family of text tasks: every arm's LoRAs on each member's validation rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from condpdiff.common.files import read_rows
from condpdiff.common.hardware import device
from condpdiff.common.stage import once
from condpdiff.common.task import number
from condpdiff.diffusion.conditions import projected
from condpdiff.evaluate.family import FamilyEvaluation, Run
from condpdiff.text.conditions import inputs, nonsense_inputs
from condpdiff.text.encoder import load_encoder
from condpdiff.text.families.losses import Classifier, Family
from condpdiff.text.task import Task
from condpdiff.zoo.checkpoints import digest
from condpdiff.zoo.many import finetune_many

LABELLED, FEW_STEPS = (16, 64), 20  # labelled rows, on which a classifier is trained, and LoRAs in so many steps
BATCH = 16  # rows of each member in one pass


class Evaluation(FamilyEvaluation):
    """Of each arm the accuracy in percent on validation rows, and on the `held_out` rows that tell of a member."""

    best, warm = ("held_out", True), ("ridge",)
    task: Task
    family: Family

    def __init__(self, name: str, task: Task, data: Path, run: Run) -> None:
        folder = data / "tasks" / name
        frames = {split: read_rows(folder, split) for split in ("train", "held_out", "validation")}
        self.frames = {k: [each for _, each in frame.groupby("member")] for k, frame in frames.items()}
        super().__init__(name, task, data, run, Family(task, run.collect, folder, data / "base"))

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
        y = projected(load_encoder(condition), condition, self.data)(nonsense_inputs(condition.kind))
        return {"noise": y[torch.arange(len(self.names)) % len(y)]}

    def more(self, folder: Path) -> None:
        """Cosine of text and description, and logistic regression on embeddings, by the condition's encoder."""
        encode = load_encoder(self.run.condition)

        def texts(rows: Sequence[pd.DataFrame]) -> Tensor:
            return torch.stack([encode(each["text"].tolist()) for each in rows])  # [M, V, d]

        def told(names: Sequence[str]) -> Tensor:
            return torch.stack([encode(inputs(self.data / "tasks" / name, "task_info")).mean(0) for name in names])

        families = {name.partition("/")[0] for name in self.trained_on}
        known = {k: dict(list(read_rows(self.data / "tasks" / k, "held_out").groupby("member"))) for k in families}
        rows = [known[name.partition("/")[0]][number(name)] for name in self.trained_on]
        threshold = best_threshold(cosines(texts(rows), told(self.trained_on)), np.stack([e["label"] for e in rows]))
        scored, true = texts(self.mine["validation"]), self.judges["validation"].labels
        found = {"cosine": accuracy(cosines(scored, told(self.names)) > threshold, true)}
        few = [each.iloc[: max(LABELLED)] for each in self.mine["train"]]
        train, labels = texts(few), np.stack([each["label"] for each in few])
        for n in LABELLED:
            found[f"classifier@{n}"] = classifier_accuracy(train[:, :n], labels[:, :n], scored, true)
        for arm, values in found.items():
            self.note(arm, [{"accuracy": value} for value in values])

    def starts(self) -> None:
        """Beside the others, LoRAs from nothing and from condpdiff on few labelled rows."""
        super().starts()
        finetune = self.task.finetune.model_copy(update={"steps": FEW_STEPS})
        for n in LABELLED:
            losses = self.family.losses(self.numbers, finetune.batch_size, self.run.eval.seed, most=n)
            for start, theta in {"zero": self._nothing(), "condpdiff": self.generated(self.y)}.items():
                tuned = finetune_many(losses, theta, self.family.trained, finetune, f"{start}, {n} rows")
                self.record(f"{start}@{n}", tuned)


class Judge:
    """Scores LoRAs of M members on their rows, as many of each: [M, V]."""

    def __init__(self, classifier: Classifier, rows: Sequence[pd.DataFrame]) -> None:
        self.classifier = classifier
        self.hidden = classifier.hidden([text for each in rows for text in each["text"]])
        self.labels = np.stack([each["label"] for each in rows])  # [M, V]
        self.of = digest(self.hidden.states.cpu())  # labels stand in one order in all
        # Of each member the shortest rows first: a batch then has rows of one length.
        self.order = self.hidden.mask.sum(1).view(self.labels.shape).argsort(dim=1)
        self.first = torch.arange(len(rows), device=device())[:, None] * self.labels.shape[1]

    def predict(self, theta: Tensor) -> np.ndarray:
        """Each member's rows under its own LoRA of theta [M, K] -> classes [M, V]."""
        what = f"{digest(theta)} {self.of}"
        return once(what, lambda: {"classes": torch.from_numpy(self._predicted(theta))})["classes"].numpy()

    @torch.no_grad()
    def _predicted(self, theta: Tensor) -> np.ndarray:
        found, theta = np.empty(self.labels.shape), theta.to(device())
        for part in self.order.split(BATCH, dim=1):  # [M, BATCH]
            logits = self.classifier(theta, self.hidden[(self.first + part).flatten()])
            np.put_along_axis(found, part.cpu().numpy(), logits.argmax(1).view(part.shape).cpu().numpy(), axis=1)
        return found

    def __call__(self, theta: Tensor) -> np.ndarray:
        """Accuracy in percent [M]."""
        return accuracy(self.predict(theta), self.labels)


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Percent of each member's rows [M, V] -> [M]."""
    return 100 * (predictions == labels).mean(1)


def cosines(texts: Tensor, told: Tensor) -> np.ndarray:
    """Embeddings of rows [M, V, d] and of what tells of each member [M, d] -> cosines [M, V]."""
    return torch.cosine_similarity(texts, told[:, None], dim=2).cpu().numpy()


def best_threshold(values: np.ndarray, labels: np.ndarray) -> float:
    """The threshold between two values above which most rows are yes, of all rows together."""
    order = np.argsort(values, axis=None)
    value, label = values.ravel()[order], labels.ravel()[order]
    # Right with a threshold behind the first i rows: the no among them, and the yes of the rest.
    right = np.concatenate([[label.sum()], label.sum() + np.cumsum(1 - 2 * label)])
    edges = np.concatenate([value[:1] - 1, (value[1:] + value[:-1]) / 2, value[-1:] + 1])
    return float(edges[right.argmax()])


def classifier_accuracy(train: Tensor, labels: np.ndarray, rows: Tensor, true: np.ndarray) -> np.ndarray:
    """Logistic regression of each member on embeddings [M, n, d] with labels [M, n], scored on [M, V, d] -> [M]."""
    from sklearn.linear_model import LogisticRegression

    found = [
        LogisticRegression(max_iter=1000).fit(x.numpy(), y).predict(new.numpy())
        for x, y, new in zip(train, labels, rows, strict=True)
    ]
    return accuracy(np.stack(found), true)
