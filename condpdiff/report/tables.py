"""Reads what merge-eval wrote and says which candidate of each arm counts and what it scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_json
from condpdiff.report.readers import read_arrays, read_csv, read_distances

if TYPE_CHECKING:
    from condpdiff.text.task import Task

ARMS = {  # in the order of every table
    "majority": "the most frequent class of the training rows (regression: their mean), no model",
    "no_lora": "the base model with the task's trained head and no LoRA",
    "original": "single checkpoints of the zoo",
    "soup": "the mean of all N checkpoints",
    "soup_16": "means of 16 random checkpoints",
    "gaussian": "draws from a normal distribution fitted to each coordinate of the zoo",
    "pca_gaussian": "draws from a normal distribution on the zoo's first principal axes (`eval.pca_axes`)",
    "checkpoint_noise": "checkpoints with random noise on them, as far from a checkpoint as the generated ones are",
    "ae_reconstruction": "checkpoints after the autoencoder, D(E(w))",
    "zero_decode": "zeros in place of a decoded vector, denormalised: the soup itself under `normalize.method: task`",
    "condpdiff": "generated: noise, denoised under the task's condition and decoded",
}
CONTROLS = ("soup", "soup_16", "gaussian", "pca_gaussian", "checkpoint_noise")
"""What a generator of checkpoints must beat: none of them needs a trained generator."""
HEADLINE = ("condpdiff", "original", "soup", "gaussian")
MEANS = ("condpdiff", "original")


@dataclass(frozen=True)
class Scored:
    """What merge-eval wrote of one task, whatever its domain; R rows of scores, M points."""

    name: str
    scores: pd.DataFrame
    """[R] arm, candidate, checkpoint, rows, select, validation, validation_<metric>..., distance; index 0..R-1.

    In racing `select` is NaN where a candidate dropped out, and validation where it did not win.
    """
    distances: np.ndarray  # [M, M]: L2 between points of theta space
    points: pd.DataFrame  # [M]: arm, candidate
    spread: dict[str, float]
    """Root mean square distance of each arm's candidates to their own mean; `checkpoint` is the zoo."""
    unscored: int
    """Candidates that were scored and whose score is not a number; they count as the worst."""
    passes: dict[str, dict[str, int]]
    """Split -> rows through the model: `done`, and what `full` selection would have cost."""
    racing: bool
    """Each arm's winner alone was scored on validation."""
    doses: pd.DataFrame
    """arm, asked, candidate, loss, validation: the soup (asked: NaN) and every dose's candidates; or no row."""

    known: ClassVar[dict[str, str]] = ARMS
    """The domain's arms, and what each is."""
    lower: ClassVar[bool] = False
    """A lower score is better."""
    decimals: ClassVar[int] = 1
    """Of a score."""

    @property
    def arms(self) -> list[str]:
        """The arms known here in their order, then any other in the file's."""
        found = list(dict.fromkeys(self.scores["arm"]))
        return [a for a in self.known if a in found] + [a for a in found if a not in self.known]

    def picked(self, arm: str) -> float:
        """The validation score that stands for an arm: the selected candidate's."""
        return float(column(self.scores, np.array([selected(self.scores, arm)]), "validation")[0])

    @property
    def metric(self) -> str:
        """Name of the score."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """What an axis of scores says."""
        return f"{self.metric} on validation, %"

    @property
    def doses_scored(self) -> bool:
        """The doses' samples have a validation score beside their loss."""
        return not self.racing


@dataclass(frozen=True)
class Evaluation(Scored):
    """One text task; V validation rows."""

    task: "Task"
    predictions: np.ndarray  # [R, V]: class index or value; NaN where validation is
    labels: np.ndarray  # [V]

    @property
    def metric(self) -> str:
        return self.task.metrics[0]


def read_evaluation(root: Path, name: str, task: "Task") -> Evaluation:
    """Read and check `root/<name>/`.

    Raises:
        UserError: a file is absent or broken, a column or an arm is missing, or sizes disagree.
    """
    folder = root / name
    common = read_common(folder)
    scores, unscored = _read_scores(folder / "scores.csv", name, task, common["racing"])
    tensors = read_arrays(folder / "predictions.safetensors", ["predictions", "labels"])
    predictions, labels = tensors["predictions"], tensors["labels"]
    if predictions.shape != (len(scores), len(labels)):
        raise UserError(
            f"{folder}/predictions.safetensors: predictions are {list(predictions.shape)}, "
            f"needed: [{len(scores)} rows of scores.csv, {len(labels)} labels]"
        )
    return Evaluation(
        name=name, task=task, scores=scores, unscored=unscored, predictions=predictions, labels=labels, **common
    )


def read_common(folder: Path) -> dict[str, Any]:
    """What is read alike in every domain: racing, passes, doses, points, distances and spread.

    Raises:
        UserError: a file is absent or broken, or sizes disagree.
    """
    passes = read_json(folder / "passes.json")
    points, distances = read_distances(folder / "points.csv", folder / "distances.safetensors", ["arm", "candidate"])
    return {
        "racing": passes["select"] == "racing",
        "passes": passes["rows"],
        "doses": read_csv(folder / "doses.csv", ["arm", "asked", "candidate", "loss", "validation"]),
        "points": points,
        "distances": distances,
        "spread": {str(k): float(v) for k, v in read_json(folder / "spread.json").items()},
    }


def _read_scores(path: Path, name: str, task: "Task", racing: bool) -> tuple[pd.DataFrame, int]:
    """scores.csv, and how many candidates were scored without success: their validation scores become 0."""
    scores, scored, unscored = read_scores(path, name, task.metrics, ARMS, racing)
    validation = ["validation", *(f"validation_{m}" for m in task.metrics)]
    scores.loc[scored, validation] = scores.loc[scored, validation].fillna(0.0)
    return scores, unscored


def read_scores(
    path: Path, name: str, metrics: Sequence[str], arms: dict[str, str], racing: bool
) -> tuple[pd.DataFrame, np.ndarray, int]:
    """scores.csv; which rows [R] were scored on validation; and how many candidates were scored without success.

    Raises:
        UserError: the file is absent or broken, or lacks a column or an arm.
    """
    scores = read_csv(path, ["arm", "candidate", "checkpoint", "rows", "select", "validation", "distance"])
    if missing := [m for m in metrics if f"validation_{m}" not in scores]:
        raise UserError(f"{path}: no column 'validation_{missing[0]}', which metrics of task {name!r} ask for")
    if absent := [arm for arm in arms if arm not in set(scores["arm"])]:
        raise UserError(f"{path}: no row of arm {absent[0]!r}, needed: {', '.join(arms)}; run `dvc repro` again")
    winners = [selected(scores, arm) for arm in scores["arm"].unique()]
    scored = np.asarray(scores.index.isin(winners)) if racing else np.ones(len(scores), dtype=bool)
    seen = scores["rows"] == scores["rows"].max()
    unscored = scores.index[(scored & scores["validation"].isna()) | (seen & scores["select"].isna())]
    return scores, scored, len(unscored)


def candidates(scores: pd.DataFrame, arm: str) -> np.ndarray:
    """Row numbers of one arm, lowest candidate first."""
    rows = np.flatnonzero(scores["arm"] == arm)
    return rows[np.argsort(scores["candidate"].to_numpy()[rows], kind="stable")]


def column(scores: pd.DataFrame, rows: np.ndarray, name: str) -> np.ndarray:
    """Values of one column at `rows`."""
    return scores[name].to_numpy(dtype=np.float64)[rows]


def selected(scores: pd.DataFrame, arm: str) -> int:
    """Our one rule: the row that is best on the held-out select rows; ties go to the lowest candidate."""
    return _best(scores, arm, "select")


def paper_pick(scores: pd.DataFrame, arm: str) -> int:
    """The paper's rule: `original` is picked on validation itself, everything else as ours."""
    return _best(scores, arm, "validation" if arm == "original" else "select")


def _best(scores: pd.DataFrame, arm: str, by: str) -> int:
    rows = candidates(scores, arm)
    return int(rows[np.argmax(np.nan_to_num(column(scores, rows, by), nan=-np.inf))])


@dataclass(frozen=True)
class ArmScore:
    """One arm of one task; every score is on validation.

    In racing all but `selected` are NaN for an arm of several candidates: they need every candidate's score.
    """

    task: str
    arm: str
    candidates: int
    row: int
    """Of `scores`: the selected candidate."""
    selected: float
    mean: float
    std: float
    """Sample standard deviation over the candidates; NaN for a single one."""
    best: float
    worst: float
    paper: float
    """The candidate that the paper's rule picks."""


Summary = list[ArmScore]


def summarise(evaluations: Sequence[Scored]) -> Summary:
    """Every arm of every task, in the order of the tables."""
    summary = []
    for e in evaluations:
        validation = e.scores["validation"].to_numpy(dtype=np.float64)
        for arm in e.arms:
            values = validation[candidates(e.scores, arm)]
            row = selected(e.scores, arm)
            summary.append(
                ArmScore(
                    task=e.name,
                    arm=arm,
                    candidates=len(values),
                    row=row,
                    selected=e.picked(arm),
                    mean=float(values.mean()),
                    std=float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
                    best=float(values.min() if e.lower else values.max()),
                    worst=float(values.max() if e.lower else values.min()),
                    paper=float("nan") if np.isnan(values).any() else float(validation[paper_pick(e.scores, arm)]),
                )
            )
    return summary


def pivot(summary: Summary, field: str) -> dict[str, dict[str, float]]:
    """arm -> task -> one field of the summary; `average` is the mean over tasks. NaN where a task lacks the arm."""
    tasks = list(dict.fromkeys(s.task for s in summary))
    table: dict[str, dict[str, float]] = {}
    for s in summary:
        table.setdefault(s.arm, dict.fromkeys(tasks, float("nan")))[s.task] = getattr(s, field)
    return {arm: {**row, "average": float(np.mean(list(row.values())))} for arm, row in table.items()}


def not_learned(evaluations: list[Evaluation], summary: Summary, margin: float) -> dict[str, str]:
    """Tasks whose checkpoints learned nothing, with the reason: what is generated there says nothing either."""
    flags = {}
    picked = pivot(summary, "selected")
    for e in evaluations:
        values = column(e.scores, candidates(e.scores, "original"), "validation")
        best, floor, bare = (picked[arm][e.name] for arm in ("original", "majority", "no_lora"))
        constant = "the majority class" if e.task.data.kind == "classification" else "a constant"
        if np.allclose(values, floor, rtol=0, atol=1e-6):
            flags[e.name] = f"collapsed: all {len(values)} scored checkpoints score as {constant} does ({floor:.1f})"
            continue
        for other, score in ((constant, floor), ("the base model without LoRA", bare)):
            if best <= score or best - score < margin:
                flags[e.name] = (
                    f"the selected checkpoint ({best:.1f}) is not {margin:g} points above {other} ({score:.1f})"
                )
                break
    return flags


def metrics(summary: Summary, flags: dict[str, str]) -> dict[str, dict[str, float] | int]:
    """What `dvc metrics show` and `dvc exp show` show: validation scores of the selected candidates, and means."""
    picked, means = pivot(summary, "selected"), headline_means(summary, 2)
    result: dict[str, dict[str, float] | int] = {
        task: {arm: round(picked[arm][task], 2) for arm in HEADLINE} | means[task] for task in means
    }
    result["tasks_not_learned"] = len(flags)
    return result


def headline_means(summary: Summary, decimals: int) -> dict[str, dict[str, float]]:
    """Task -> `<arm>_mean`, over all candidates; none in racing, where not all have a score."""
    means = pivot(summary, "mean")
    found = {task: {f"{arm}_mean": means[arm][task] for arm in MEANS} for task in means["condpdiff"]}
    return {t: {k: round(v, decimals) for k, v in row.items() if not np.isnan(v)} for t, row in found.items()}


def consecutive_distance(e: Scored) -> float:
    """Median L2 between neighbouring checkpoints: the yardstick for every other distance (NaN below two)."""
    order = candidates(e.points, "checkpoint")
    return float(np.median(e.distances[order[:-1], order[1:]])) if len(order) > 1 else float("nan")
