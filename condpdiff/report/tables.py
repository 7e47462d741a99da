"""Reads what merge-eval wrote and says which candidate of each arm counts and what it scores."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file

from condpdiff.errors import UserError
from condpdiff.files import read_json
from condpdiff.text.task import Task

ARMS = {  # in the order of every table
    "majority": "the most frequent class of the training rows (regression: their mean), no model",
    "no_lora": "the base model with the task's trained head and no LoRA",
    "original": "single checkpoints of the zoo",
    "soup": "the mean of all N checkpoints",
    "soup_16": "means of 16 random checkpoints",
    "gaussian": "draws from a normal distribution fitted to each coordinate of the zoo",
    "pca_gaussian": "draws from a normal distribution on the zoo's first principal axes (`eval.pca_axes`)",
    "ae_reconstruction": "checkpoints after the autoencoder, D(E(w))",
    "zero_decode": "zeros in place of a decoded vector, denormalised: the soup itself under `normalize.method: task`",
    "condpdiff": "generated: noise, denoised under the task's condition and decoded",
}
CONTROLS = ("soup", "soup_16", "gaussian", "pca_gaussian")
"""What a generator of checkpoints must beat: none of them needs a trained generator."""
HEADLINE = ("condpdiff", "original", "soup", "gaussian")


@dataclass(frozen=True)
class Evaluation:
    """Everything that merge-eval wrote of one task; R rows of scores, V validation rows, M points."""

    name: str
    task: Task
    scores: pd.DataFrame
    """[R] arm, candidate, checkpoint, rows, select, validation, validation_<metric>..., distance; index 0..R-1.

    In racing `select` is NaN where a candidate dropped out, and validation where it did not win.
    """
    predictions: np.ndarray  # [R, V]: class index or value; NaN where validation is
    labels: np.ndarray  # [V]
    distances: np.ndarray  # [M, M]: L2 between points of theta space
    points: pd.DataFrame  # [M]: arm, candidate
    spread: dict[str, float]
    """Root mean square distance of each arm's candidates to their own mean; `checkpoint` is the zoo."""
    unscored: int
    """Candidates that were scored and whose score is not a number; they count as 0."""
    passes: dict[str, dict[str, int]]
    """Split -> rows through the model: `done`, and what `full` selection would have cost."""
    racing: bool
    """Each arm's winner alone was scored on validation."""
    doses: pd.DataFrame
    """arm, asked, candidate, loss, validation: the soup (asked: NaN) and every dose's candidates; or no row."""

    @property
    def metric(self) -> str:
        return self.task.metrics[0]

    @property
    def arms(self) -> list[str]:
        """The arms known here in their order, then any other in the file's."""
        found = list(dict.fromkeys(self.scores["arm"]))
        return [a for a in ARMS if a in found] + [a for a in found if a not in ARMS]


def read_evaluation(root: Path, name: str, task: Task) -> Evaluation:
    """Read and check `root/<name>/`.

    Raises:
        UserError: a file is absent or broken, a column or an arm is missing, or sizes disagree.
    """
    folder = root / name
    passes = read_json(folder / "passes.json")
    racing = passes["select"] == "racing"
    scores, unscored = _read_scores(folder / "scores.csv", name, task, racing)
    doses = read_csv(folder / "doses.csv", ["arm", "asked", "candidate", "loss", "validation"])

    tensors = read_arrays(folder / "predictions.safetensors", ["predictions", "labels"])
    predictions, labels = tensors["predictions"], tensors["labels"]
    if predictions.shape != (len(scores), len(labels)):
        raise UserError(
            f"{folder}/predictions.safetensors: predictions are {list(predictions.shape)}, "
            f"needed: [{len(scores)} rows of scores.csv, {len(labels)} labels]"
        )
    points = read_csv(folder / "points.csv", ["arm", "candidate"])
    distances = read_arrays(folder / "distances.safetensors", ["distances"])["distances"]
    if distances.shape != (len(points), len(points)):
        raise UserError(
            f"{folder}/distances.safetensors: distances are {list(distances.shape)}, "
            f"needed: [{len(points)}, {len(points)}], one for each row of points.csv"
        )
    spread = {str(k): float(v) for k, v in read_json(folder / "spread.json").items()}
    return Evaluation(
        name, task, scores, predictions, labels, distances, points, spread, unscored, passes["rows"], racing, doses
    )


def _read_scores(path: Path, name: str, task: Task, racing: bool) -> tuple[pd.DataFrame, int]:
    """scores.csv, and how many candidates were scored without success: their validation scores become 0."""
    scores = read_csv(path, ["arm", "candidate", "checkpoint", "rows", "select", "validation", "distance"])
    validation = ["validation", *(f"validation_{m}" for m in task.metrics)]
    if missing := [c for c in validation if c not in scores]:
        raise UserError(f"{path}: no column {missing[0]!r}, which metrics of task {name!r} ask for")
    if absent := [arm for arm in ARMS if arm not in set(scores["arm"])]:
        raise UserError(f"{path}: no row of arm {absent[0]!r}, needed: {', '.join(ARMS)}; run `dvc repro` again")
    winners = [selected(scores, arm) for arm in scores["arm"].unique()]
    scored = scores.index.isin(winners) if racing else np.ones(len(scores), dtype=bool)
    seen = scores["rows"] == scores["rows"].max()
    unscored = scores.index[(scored & scores["validation"].isna()) | (seen & scores["select"].isna())]
    scores.loc[scored, validation] = scores.loc[scored, validation].fillna(0.0)
    return scores, len(unscored)


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table that has at least `columns`; `#` starts a comment line.

    Raises:
        UserError: the file is absent or broken, or lacks a column.
    """
    try:
        frame = pd.read_csv(path, comment="#")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro`") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable table ({error})") from None
    if missing := [c for c in columns if c not in frame]:
        raise UserError(f"{path}: no column {missing[0]!r}, found: {', '.join(map(str, frame.columns))}")
    return frame


def read_arrays(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Tensors of a safetensors file as NumPy arrays.

    Raises:
        UserError: the file is absent or broken, or lacks a tensor.
    """
    try:
        arrays = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro`") from None
    except (SafetensorError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None
    if missing := [n for n in names if n not in arrays]:
        raise UserError(f"{path}: no tensor {missing[0]!r}, found: {', '.join(sorted(arrays))}")
    return arrays


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
    """One arm of one task; every score is on validation, in percent.

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


def summarise(evaluations: list[Evaluation]) -> Summary:
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
                    selected=float(validation[row]),
                    mean=float(values.mean()),
                    std=float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
                    best=float(values.max()),
                    worst=float(values.min()),
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
    """What `dvc metrics show` and `dvc exp show` show: the selected candidates' validation scores."""
    picked = pivot(summary, "selected")
    columns = list(picked["condpdiff"])
    result: dict[str, dict[str, float] | int] = {
        task: {arm: round(picked[arm][task], 2) for arm in HEADLINE} for task in columns
    }
    result["tasks_not_learned"] = len(flags)
    return result


def wrong_overlap(e: Evaluation, arm: str) -> float:
    """Mean over an arm's candidates of the largest IoU of wrong predictions with any *other* scored checkpoint.

    The novelty measure of p-diff: 1 means the same mistakes as some checkpoint. Classification only (else NaN).
    """
    if e.task.data.kind != "classification":
        return float("nan")
    wrong = e.predictions != e.labels  # [R, V]
    mine, zoo = candidates(e.scores, arm), candidates(e.scores, "original")
    a, b = wrong[mine].astype(np.float64), wrong[zoo].astype(np.float64)
    both = a @ b.T  # [mine, zoo]
    either = a.sum(1)[:, None] + b.sum(1)[None, :] - both
    iou = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    iou[mine[:, None] == zoo[None, :]] = -1.0  # not with itself
    best = iou.max(axis=1)
    return float(best.mean()) if (best >= 0).all() else float("nan")


def consecutive_distance(e: Evaluation) -> float:
    """Median L2 between neighbouring checkpoints: the yardstick for every other distance (NaN below two)."""
    order = candidates(e.points, "checkpoint")
    return float(np.median(e.distances[order[:-1], order[1:]])) if len(order) > 1 else float("nan")
