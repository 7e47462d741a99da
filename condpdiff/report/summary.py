"""What every arm of every task scores, and the figures of it that DVC shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from condpdiff.report.arms import OURS
from condpdiff.report.evaluation import Evaluation

AVERAGE = "average"
"""In place of a task: the mean over tasks."""
HEADLINE = {
    AVERAGE: (OURS, f"{OURS}_mean", "original", "original_mean", "soup", "gaussian"),
    "task": (OURS, f"{OURS}_mean", "soup"),
}
"""Arms of metrics.json, of the average and of each task: the selected candidate, or the mean over all."""


@dataclass(frozen=True)
class ArmScore:
    """One arm of one task; every score is on validation.

    In racing all but `selected` are NaN for an arm of several candidates: they need every candidate's score.
    """

    task: str
    arm: str
    candidates: int
    selected: float
    mean: float
    std: float  # sample standard deviation over the candidates; NaN for a single one
    best: float
    worst: float


Summary = list[ArmScore]


def summarise(evaluations: Sequence[Evaluation]) -> Summary:
    """Every arm of every task, in the order of the tables."""
    summary = []
    for e in evaluations:
        for arm in e.arms:
            values = e.values(arm)
            std = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
            mean, best, worst = (float(value) for value in (values.mean(), values.max(), values.min()))
            summary.append(ArmScore(e.name, arm, len(values), e.picked(arm), mean, std, best, worst))
    return summary


def pivot(summary: Summary, field: str) -> dict[str, dict[str, float]]:
    """arm -> task -> one field of the summary; AVERAGE is the mean over tasks. NaN where a task lacks the arm."""
    tasks = list(dict.fromkeys(s.task for s in summary))
    table: dict[str, dict[str, float]] = {}
    for s in summary:
        table.setdefault(s.arm, dict.fromkeys(tasks, float("nan")))[s.task] = getattr(s, field)
    return {arm: {**row, AVERAGE: float(np.mean(list(row.values())))} for arm, row in table.items()}


def averages(summary: Summary, field: str = "selected") -> dict[str, float]:
    """arm -> mean over tasks of one field."""
    return {arm: row[AVERAGE] for arm, row in pivot(summary, field).items()}


def metrics(summary: Summary, flags: dict[str, str]) -> dict[str, Any]:
    """What `dvc metrics show` and `dvc exp show` show, with one decimal more than the tables.

    In racing there is no mean over all candidates: not all have a score.
    """
    picked = pivot(summary, "selected")
    picked |= {f"{arm}_mean": row for arm, row in pivot(summary, "mean").items()}
    found: dict[str, Any] = {}
    for task in picked[OURS]:
        shown = {arm: picked[arm][task] for arm in HEADLINE.get(task, HEADLINE["task"])}
        found[task] = {arm: round(value, 2) for arm, value in shown.items() if not np.isnan(value)}
    return {**found, "tasks_not_learned": len(flags)}


def arms_frame(summary: Summary) -> pd.DataFrame:
    """task, arm, score, mean, low, high: the selected candidate, and its arm's mean, lowest and highest."""
    rows = [(s.task, s.arm, s.selected, s.mean, s.worst, s.best) for s in summary]
    return pd.DataFrame(rows, columns=["task", "arm", "score", "mean", "low", "high"]).round(4)
