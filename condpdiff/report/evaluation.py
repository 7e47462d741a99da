"""Reads what merge-eval wrote of a task, and says which candidate of each arm counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_json
from condpdiff.report.arms import ARMS
from condpdiff.report.readers import read_csv, read_distances


@dataclass(frozen=True)
class Scale:
    """How a domain scores."""

    axis: str  # what an axis of scores says of `{metric}`
    bare: Mapping[str, str]  # arms that are no LoRA vectors, and what each is; they come first in every table

    @property
    def arms(self) -> dict[str, str]:
        """Every arm in the order of tables, and what it is."""
        return {**self.bare, **{name: arm.what for name, arm in ARMS.items()}}


@dataclass(frozen=True)
class Evaluation:
    """What merge-eval wrote of one task; R rows of scores, M points."""

    name: str
    task: Any  # the domain's own
    scale: Scale
    scores: pd.DataFrame
    """[R] arm, candidate, checkpoint, rows, select, validation, validation_<metric>..., distance; index 0..R-1.

    In racing `select` is NaN where a candidate dropped out, and validation where it did not win.
    """
    unscored: int  # candidates that were scored and whose score is not a number; they count as 0
    racing: bool  # each arm's winner alone was scored on validation
    passes: dict[str, dict[str, int]]
    """Split -> rows through the model: `done`, and what `full` selection would have cost."""
    doses: pd.DataFrame
    """arm, asked, candidate, loss, validation: the soup (asked: NaN) and every dose's candidates; or no row."""
    points: pd.DataFrame  # [M]: arm, candidate
    distances: np.ndarray  # [M, M]: L2 between points of theta space
    ways: tuple[pd.DataFrame, np.ndarray]
    """arm, candidate, point of checkpoints, soup and what noises become on their way; the distances between them."""
    spread: dict[str, float]
    """Root mean square distance of each arm's candidates to their own mean; `checkpoint` is the zoo."""

    @property
    def arms(self) -> list[str]:
        """The arms known here in their order, then any other in the file's."""
        found, known = list(dict.fromkeys(self.scores["arm"])), self.scale.arms
        return [a for a in known if a in found] + [a for a in found if a not in known]

    def values(self, arm: str, column: str = "validation") -> np.ndarray:
        """A column of scores of an arm's candidates."""
        return candidates(self.scores, arm)[column].to_numpy(dtype=np.float64)

    def picked(self, arm: str, column: str = "validation") -> float:
        """The score that stands for an arm: the selected candidate's."""
        return float(self.scores[column][selected(self.scores, arm)])

    @property
    def metric(self) -> str:
        """The one that counts."""
        return str(self.task.metrics[0])

    @property
    def label(self) -> str:
        """What an axis of scores says."""
        return self.scale.axis.format(metric=self.metric)

    @property
    def doses_scored(self) -> bool:
        """The doses' samples have a validation score beside their loss."""
        return not self.racing and bool(self.doses["validation"].notna().any())


def read_evaluation(folder: Path, task: Any, scale: Scale) -> Evaluation:
    """Read and check `folder`, which has the task's name.

    Raises:
        UserError: a file is absent or broken, a column or an arm is missing, or sizes disagree.
    """
    passes = read_json(folder / "passes.json")
    racing = passes["select"] == "racing"
    scores, unscored = _read_scores(folder / "scores.csv", task, scale, racing)
    points, distances = read_distances(folder, "distances", "points.csv", ["arm", "candidate"])
    return Evaluation(
        name=folder.name, task=task, scale=scale, scores=scores, unscored=unscored, racing=racing,
        passes=passes["rows"], points=points, distances=distances,
        doses=read_csv(folder / "doses.csv", ["arm", "asked", "candidate", "loss", "validation"]),
        ways=read_distances(folder, "trajectories", "trajectories.csv", ["arm", "candidate", "point"]),
        spread={str(k): float(v) for k, v in read_json(folder / "spread.json").items()},
    )  # fmt: skip


def _read_scores(path: Path, task: Any, scale: Scale, racing: bool) -> tuple[pd.DataFrame, int]:
    """scores.csv, and how many candidates were scored without success: they get 0."""
    keys = ["validation", *(f"validation_{metric}" for metric in task.metrics)]
    scores = read_csv(path, ["arm", "candidate", "checkpoint", "rows", "select", "distance", *keys])
    if absent := [arm for arm in scale.arms if arm not in set(scores["arm"])]:
        raise UserError(f"{path}: no row of arm {absent[0]!r}, needed: {', '.join(scale.arms)}; run `dvc repro` again")
    winners = [selected(scores, arm) for arm in scores["arm"].unique()]
    scored = np.asarray(scores.index.isin(winners)) if racing else np.ones(len(scores), dtype=bool)
    seen = scores["rows"] == scores["rows"].max()
    unscored = int(((scored & scores["validation"].isna()) | (seen & scores["select"].isna())).sum())
    scores.loc[scored, keys] = scores.loc[scored, keys].fillna(0.0)
    return scores, unscored


def candidates(rows: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The rows of one arm, lowest candidate first."""
    return rows[rows["arm"] == arm].sort_values("candidate", kind="stable")


def selected(scores: pd.DataFrame, arm: str) -> int:
    """Our one rule: the row that is best on the held-out select rows; ties go to the lowest candidate."""
    rows = candidates(scores, arm)
    return int(rows.index[int(rows["select"].astype(float).fillna(-np.inf).argmax())])


def consecutive_distance(e: Evaluation) -> float:
    """Median L2 between neighbouring checkpoints: the yardstick for every other distance (NaN below two)."""
    order = candidates(e.points, "checkpoint").index
    return float(np.median(e.distances[order[:-1], order[1:]])) if len(order) > 1 else float("nan")
