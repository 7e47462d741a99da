"""Merge a LoRA into the base model, W = W0 + (alpha / r) B A, and score it: what does not depend on the domain."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch import Tensor, addmm

from condpdiff.common.hardware import device
from condpdiff.common.task import Task
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.layout import unflatten
from condpdiff.zoo.placed import PREFIX, merge_targets, weight_of

NAN = float("nan")


@dataclass(frozen=True)
class Candidate:
    """What was found of one candidate: a row of scores.csv."""

    rows: int  # select rows seen; fewer than all if it dropped out of a race
    select: float
    """Its score on them, higher is better; NaN if it dropped out, or its score is no number."""
    validation: Mapping[str, float] = field(default_factory=dict)
    """The task's metrics; empty: it did not win the race, and was not scored there."""
    made: np.ndarray | None = None
    """What it made of the validation rows, as `Scorer.validate` gives it."""
    arm: str = ""
    number: int = 0  # of the candidate in its arm
    checkpoint: int | None = None
    """Index in the zoo of a candidate that is, or comes from, one checkpoint."""
    distance: float = NAN
    """L2 to the nearest checkpoint, to the nearest other one for checkpoints themselves."""


class Scorer(ABC):
    """The base model of one task; scores vectors theta [K] on fixed rows.

    A domain prepares its rows once. A candidate costs its merge (a rank-r product a module) and its forward passes.
    """

    reference: ClassVar[str]
    """The arm of what needs no LoRA, in scores.csv before all others."""

    def __init__(self, model: Any, zoo: Zoo, task: Task, rows: Mapping[str, int]) -> None:
        """Put the model on the device.

        Args:
            model: the base model, W0, its head in it.
            rows: of every split that losses are taken on, how many there are.

        Raises:
            UserError: the model lacks a module of the zoo's layout, or its weight has another shape.
        """
        self.layout, self.scale = zoo.layout, zoo.config["alpha"] / zoo.config["rank"]
        self.metrics, self.rows = [str(metric) for metric in task.metrics], dict(rows)
        self.device = device()
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.modules = merge_targets(self.model, zoo.layout)
        self.base_weights = {name: weight_of(module).clone() for name, module in self.modules.items()}
        self.passes: Counter[str] = Counter()
        """Rows that went through the model so far, by split."""

    def merge(self, theta: Tensor | None) -> None:
        """Set the model's weights to W0 + (alpha / r) B A; None restores W0 (no LoRA).

        Raises:
            UserError: theta has another length than the layout.
        """
        tensors = {} if theta is None else unflatten(theta.to(self.device), self.layout)
        for name, module in self.modules.items():
            weight = self.base_weights[name]
            if theta is not None:
                a = tensors[f"{PREFIX}{name}.lora_A.weight"]  # [r, in]
                b = tensors[f"{PREFIX}{name}.lora_B.weight"]  # [out, r]
                weight = addmm(weight, b, a, alpha=self.scale)
            weight_of(module).copy_(weight)

    def losses(self, split: str) -> np.ndarray:
        """Loss of each row [V] float64 of the model as it is merged now, in split order."""
        return self.losses_of(self.outputs(split), split)

    @abstractmethod
    def outputs(self, split: str) -> np.ndarray:
        """What the model, as it is merged now, puts out for each row: [V, ...], in split order."""

    @abstractmethod
    def losses_of(self, outputs: np.ndarray, split: str) -> np.ndarray:
        """Loss of each row [V] float64, from outputs [V, ...] of a split."""

    @abstractmethod
    def select_score(self, outputs: np.ndarray) -> float:
        """The score that outputs of all `select` rows stand for: higher is better; NaN: no number."""

    @abstractmethod
    def validate(self) -> tuple[dict[str, float], np.ndarray]:
        """The task's metrics of the model as it is merged now on the validation rows, and what is kept of it."""

    @abstractmethod
    def constant(self, train: pd.DataFrame) -> Candidate:
        """The candidate of the arm `reference`, from the task's training rows."""

    @abstractmethod
    def write(self, folder: Path, rows: Sequence[Candidate]) -> None:
        """Write to `folder` what the domain keeps of its candidates beside their scores; `rows` as in scores.csv."""


class Panel(ABC):
    """Scores LoRAs on one task by its first metric on all its validation rows."""

    @abstractmethod
    def score(self, theta: Tensor) -> float:
        """The score of one LoRA [K]."""


def first(metrics: Mapping[str, float]) -> float:
    """The metric that counts."""
    return next(iter(metrics.values()))


def first_best(select: np.ndarray) -> int:
    """The first of the highest; a score that is not a number is no candidate's best."""
    return int(np.where(np.isnan(select), -np.inf, select).argmax())
