"""What the stages wrote of a run of text tasks: which candidate of each arm counts, and all arms' scores.

What is wrong with a file is one line that names it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_json
from condpdiff.report.arms import OURS, WHAT
from condpdiff.report.blocks import Table, signed

WORDS = ("beats", "ties with", "loses to")
FEWEST = 5  # tasks of which an interval over tasks is given
AXIS = "{metric} on validation, %"  # what an axis of scores says
AVERAGE = "average"  # in place of a task: the mean over tasks
OF_TASK = (OURS, f"{OURS}_mean", "soup")  # arms of metrics.json: the selected candidate, or the mean over all
OF_AVERAGE = (*OF_TASK, "original", "original_mean", "gaussian")
Summary = pd.DataFrame
"""task, arm, candidates (how many), selected, mean, std (of the sample), best, worst: validation scores."""


class Difference(NamedTuple):
    """condpdiff minus another arm, with an interval."""

    value: float
    low: float
    high: float  # both NaN where no interval is known

    @property
    def word(self) -> str:
        """`ties` means that the interval holds 0: these rows can't tell the two apart."""
        beats, ties, loses = WORDS
        return beats if self.low > 0 else loses if self.high < 0 else ties

    @property
    def known(self) -> bool:
        return not math.isnan(self.low)

    @property
    def said(self) -> str:
        value = f"{signed(self.value)} points"
        return f"{value}, 95 % interval {signed(self.low)} to {signed(self.high)}" if self.known else value

    def __str__(self) -> str:
        return signed(self.value) + (f" [{signed(self.low)}, {signed(self.high)}]" if self.known else "")


class Comparison(NamedTuple):
    """condpdiff against one arm, for each task and for the mean over tasks."""

    arm: str
    tasks: dict[str, Difference]
    average: Difference

    @property
    def rows(self) -> dict[str, Difference]:
        """Of every task, and of their mean where there are several."""
        return self.tasks | ({"mean of tasks": self.average} if len(self.tasks) > 1 else {})


@contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro`") from None
    except (ValueError, SafetensorError) as error:  # pandas' errors are ValueErrors
        raise UserError(f"{path}: not a readable {kind} ({error})") from None


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table, or a UserError if it is absent or broken or lacks one of `columns`; what follows a `#` is a comment."""
    with _reading(path, "table"):
        frame = pd.read_csv(path, comment="#")
    if missing := [c for c in columns if c not in frame]:
        raise UserError(f"{path}: no column {missing[0]!r}, found: {', '.join(map(str, frame.columns))}")
    return frame


def read_arrays(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """Tensors of a safetensors file as NumPy arrays; a UserError if it is absent or broken."""
    with _reading(path, "safetensors file"), safe_open(path, "numpy") as found:
        return [found.get_tensor(name) for name in names]


def _read_distances(folder: Path, name: str, table: str, columns: list[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """A table of M points, and the distances [M, M] between them, of `<name>.safetensors`."""
    points, path = read_csv(folder / table, columns), folder / f"{name}.safetensors"
    (distances,) = read_arrays(path, ["distances"])
    if distances.shape != (len(points), len(points)):
        needed = f"[{len(points)}, {len(points)}], one for each row of {table}"
        raise UserError(f"{path}: distances are {list(distances.shape)}, needed: {needed}")
    return points, distances


@dataclass(frozen=True)
class Evaluation:
    """What merge-eval wrote of one task; R rows of scores, M points, V validation rows."""

    name: str
    task: Any  # text.task.Task
    scores: pd.DataFrame
    """[R] arm, candidate, checkpoint, rows, select, validation, validation_<metric>..., distance; index 0..R-1."""
    unscored: int  # candidates whose score is not a number; they count as 0
    doses: pd.DataFrame
    """arm, asked, candidate, loss, validation: the soup (asked: NaN) and every dose's candidates; or no row."""
    points: pd.DataFrame  # [M]: arm, candidate
    distances: np.ndarray  # [M, M]: L2 between points of theta space
    ways: tuple[pd.DataFrame, np.ndarray]
    """arm, candidate, point of checkpoints, soup and what noises become on their way; the distances between them."""
    spread: dict[str, float]
    """Root mean square distance of each arm's candidates to their own mean; `checkpoint` is the zoo."""
    predictions: np.ndarray  # [R, V]: class index or value; NaN where the validation score is
    labels: np.ndarray  # [V]

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
        return AXIS.format(metric=self.metric)

    @property
    def step(self) -> float:
        """Median L2 between neighbouring checkpoints: the yardstick for every other distance (NaN below two)."""
        order = candidates(self.points, "checkpoint").index
        return float(np.median(self.distances[order[:-1], order[1:]])) if len(order) > 1 else float("nan")


def read_evaluation(folder: Path, task: Any) -> Evaluation:
    """Read `folder`, which has the task's name; a UserError if a file, column or arm is missing or sizes disagree."""
    path = folder / "scores.csv"
    keys = ["validation", *(f"validation_{metric}" for metric in task.metrics)]
    scores = read_csv(path, ["arm", "candidate", "checkpoint", "rows", "select", "distance", *keys])
    if absent := [arm for arm in WHAT if arm not in set(scores["arm"])]:
        raise UserError(f"{path}: no row of arm {absent[0]!r}, needed: {', '.join(WHAT)}; run `dvc repro` again")
    unscored = int((scores["validation"].isna() | scores["select"].isna()).sum())
    scores[keys] = scores[keys].fillna(0.0)
    points, distances = _read_distances(folder, "distances", "points.csv", ["arm", "candidate"])
    path = folder / "predictions.safetensors"
    predictions, labels = read_arrays(path, ["predictions", "labels"])
    if predictions.shape != (len(scores), len(labels)):
        needed = f"[{len(scores)} rows of scores.csv, {len(labels)} labels]"
        raise UserError(f"{path}: predictions are {list(predictions.shape)}, needed: {needed}")
    return Evaluation(
        name=folder.name, task=task, scores=scores, unscored=unscored, points=points, distances=distances,
        doses=read_csv(folder / "doses.csv", ["arm", "asked", "candidate", "loss", "validation"]),
        ways=_read_distances(folder, "trajectories", "trajectories.csv", ["arm", "candidate", "point"]),
        spread=read_json(folder / "spread.json"), predictions=predictions, labels=labels,
    )  # fmt: skip


def candidates(rows: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The rows of one arm, lowest candidate first."""
    return rows[rows["arm"] == arm].sort_values("candidate", kind="stable")


def selected(scores: pd.DataFrame, arm: str) -> int:
    """Our one rule: the row that is best on the held-out select rows; ties go to the lowest candidate."""
    best: Any = candidates(scores, arm)["select"].astype(float).fillna(-np.inf).idxmax()
    return int(best)


def label_of(evaluations: Sequence[Evaluation]) -> str:
    """What is scored; tasks of different metrics have percent in common."""
    labels = {e.label for e in evaluations}
    return labels.pop() if len(labels) == 1 else AXIS.format(metric="first metric")


def arm_table(
    evaluations: Sequence[Evaluation], caption: str, arms: Sequence[str], cell: Callable[[Evaluation, str], str]
) -> Table:
    """Arms x tasks."""
    return Table.of(caption, "arm", pd.DataFrame({e.name: {arm: cell(e, arm) for arm in arms} for e in evaluations}))


def summarise(evaluations: Sequence[Evaluation]) -> Summary:
    """Every arm of every task."""
    rows = [
        [e.name, arm, len(v), e.picked(arm), v.mean(), v.std(ddof=1) if len(v) > 1 else np.nan, v.max(), v.min()]
        for e in evaluations
        for arm, v in ((arm, e.values(arm)) for arm in WHAT)
    ]
    return pd.DataFrame(rows, columns=["task", "arm", "candidates", "selected", "mean", "std", "best", "worst"])


def pivot(summary: Summary, field: str) -> pd.DataFrame:
    """Tasks x arms of one field of the summary; AVERAGE is the mean over tasks."""
    table = summary.pivot(index="task", columns="arm", values=field).loc[summary["task"].unique(), [*WHAT]]
    return pd.concat([table, table.mean().to_frame(AVERAGE).T])


def shown(summary: Summary, field: str) -> pd.DataFrame:
    """The rows of a pivot that a table shows: a single task needs no average."""
    table = pivot(summary, field)
    return table if len(table) > 2 else table[:1]


def metrics(summary: Summary, flags: Mapping[str, str]) -> dict[str, Any]:
    """What `dvc metrics show` and `dvc exp show` show, with one decimal more than the tables."""
    picked = pivot(summary, "selected").join(pivot(summary, "mean").add_suffix("_mean")).round(2)
    arms = {task: [*(OF_AVERAGE if task == AVERAGE else OF_TASK)] for task in picked.index}
    return {"tasks_not_learned": len(flags)} | {task: picked.loc[task, of].to_dict() for task, of in arms.items()}


def student(values: np.ndarray | pd.Series) -> Difference:
    """Mean of differences [n], and its interval of 95 % where others of their kind might have been drawn.

    Student's t: resampling so few would make it too narrow. Not known for fewer than FEWEST.
    """
    from scipy.stats import t  # half a second

    n, mean = len(values), float(np.mean(values))
    reach = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)) if n >= FEWEST else math.nan
    return Difference(mean, mean - reach, mean + reach)


def correlation(x: np.ndarray | pd.Series, y: np.ndarray | pd.Series) -> float:
    """Spearman's, -1 to 1, over the pairs that have both; NaN below two of them, and where one never varies."""
    return float(pd.DataFrame({"x": x, "y": y}).corr("spearman", min_periods=2).to_numpy()[0, 1])
