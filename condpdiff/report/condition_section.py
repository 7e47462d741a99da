"""What the condition does: the swap matrix, and what is lost without a task's own condition."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.evaluate.settings import DROPPED, NONSENSE
from condpdiff.report.blocks import Block, Section, Table, Text
from condpdiff.report.compare import FEWEST, Difference, counted, number, signed, student
from condpdiff.report.readers import read_csv
from condpdiff.report.spec import Settings, Spec
from condpdiff.zoo.settings import SHARED

OTHERS = "other tasks' conditions"
ENOUGH = 3
"""Tasks of which chance puts each one's own first in one case of 27."""
STATISTICS_OF_OTHERS = "other tasks' statistics"
CONTRASTS = {
    OTHERS: "the other tasks' conditions", NONSENSE: "nonsense", DROPPED: "no condition",
    STATISTICS_OF_OTHERS: "the other tasks' statistics",
}  # fmt: skip
SWAP = (
    "Mean score of {count} a cell: generated under the row's condition, denormalised by the statistics of the "
    "column's task and scored on it ({label}), from the same noise in all cells. Bold: the task's own condition. "
    "Read a column down: where its cells are alike, the statistics make the LoRA and the condition does not."
)
DROPPED_IS = " dropped: the null condition that `ldm.condition_dropout` trains."
SAME_STATISTICS = (
    " With `normalize.method: {method}` all tasks have the same statistics, so a column's are its task's in name "
    "alone, and the condition has to choose."
)
OWN_MINUS = (
    "What a task's own condition adds under its own statistics, and its own statistics under its own condition: the "
    "mean score minus that under what the row names, each LoRA paired with the one from the same noise. The "
    "interval of the mean is Student's t over tasks (95 %); below {fewest} tasks there is none."
)
STATISTICS = (
    "The other way round: generated under the task's own condition in every cell, denormalised by the statistics of "
    "the row's task, scored on the column's. Bold: its own. Where these cells differ and those above do not, the "
    "statistics choose the task."
)


@dataclass(frozen=True)
class Probed:
    """What the stage probe wrote, means over the LoRAs of a cell; empty with `probe.samples: 0`."""

    swap: pd.Series  # score by condition, statistics and task
    samples: int  # loRAs a cell
    unscored: int  # LoRAs whose score is not a number; they count as 0

    @property
    def tasks(self) -> list[str]:
        """Tasks of the swap matrix."""
        return list(self.swap.index.unique("task"))

    def under(self, condition: str, task: str, statistics: str | None = None) -> float:
        """Score on one task under a condition and a task's statistics (None: its own); NaN if there is none."""
        return float(self.swap.get((condition, statistics or task, task), math.nan))

    def own_minus(self, contrast: str) -> np.ndarray | None:
        """[tasks]: score under a task's own condition and statistics minus that under the contrast's, same noise.

        None where there is nothing to hold it against: a single task, or no such condition or statistics.
        """
        found = []
        for task in self.tasks:
            others = [name for name in self.tasks if name != task]
            pairs = [(contrast, task)]  # condition and statistics
            if contrast in (OTHERS, STATISTICS_OF_OTHERS):
                pairs = [(other, task) if contrast == OTHERS else (task, other) for other in others]
            cells = [self.under(condition, task, statistics) for condition, statistics in pairs]
            found.append(self.under(task, task) - float(np.mean(cells)) if cells else math.nan)
        return np.array(found) if found and not np.isnan(found).any() else None

    def own_is_best(self, contrast: str) -> bool:
        """Whether every task scores best under its own condition, or statistics, of all tasks'."""
        for task in self.tasks:
            pairs = [(n, task) if contrast == OTHERS else (task, n) for n in self.tasks]
            scores = {pair: self.under(pair[0], task, pair[1]) for pair in pairs}
            if any(score >= scores[task, task] for pair, score in scores.items() if pair != (task, task)):
                return False
        return True


def read_probe(root: Path) -> Probed:
    """Read and check `root/swap.csv`.

    Raises:
        UserError: the file is absent or broken, or a cell of the matrix is missing.
    """
    swap = read_csv(root / "swap.csv", ["condition", "statistics", "task", "sample", "score"])
    unscored = int(swap["score"].isna().sum())
    swap["score"] = swap["score"].fillna(0.0)
    cells = swap.groupby(["condition", "statistics", "task"], sort=False)["score"]
    tasks, conditions, sizes = set(swap["task"]), set(swap["condition"]), cells.size()
    needed = {(condition, task, task) for condition in conditions for task in tasks}
    if (swap["statistics"] != swap["task"]).any():
        needed |= {(task, other, task) for other in tasks for task in tasks}
    if set(sizes.index) != needed or sizes.nunique() > 1 or not tasks <= conditions:
        raise UserError(f"{root}/swap.csv: not as many rows for every condition and statistics; run `dvc repro` again")
    return Probed(cells.mean(), int(swap["sample"].nunique()), unscored)


def effect(found: Probed) -> dict[str, float]:
    """Of metrics.json: own condition minus the other tasks', and own statistics minus the other tasks'."""
    effects = {"condition_effect": OTHERS, "statistics_effect": STATISTICS_OF_OTHERS}
    known = {name: v for name, contrast in effects.items() if (v := found.own_minus(contrast)) is not None}
    return {name: round(float(values.mean()), 2) for name, values in known.items()}


def verdict(found: Probed) -> list[str]:
    """Is the condition used, and do the statistics choose the task? Nothing where none were swapped."""
    lines, count = [], counted(len(found.tasks), "task")
    for contrast, subject, are, work, used, held in (
        (OTHERS, "condition", "is", "works", "**chooses the task**",
         "with the same statistics and noise, own condition"),
        (STATISTICS_OF_OTHERS, "statistics", "are", "work", "**choose the task**",
         "under a task's own condition, own statistics"),
    ):  # fmt: skip
        if (values := found.own_minus(contrast)) is not None:
            difference = student(values)
            says = {
                "beats": f"The {subject} {used}",
                "ties with": f"The {subject} {are} **not measurably used**",
                "loses to": f"The {subject} {work} **against the task**",
            }[difference.word]
            said = _said(difference)
            if not difference.known:
                says = f"Whether the {subject} {are} used **can't be told** from {count}"
                if len(values) >= ENOUGH and found.own_is_best(contrast):
                    says = f"The {subject} {used}, on each of {count} (too few for an interval)"
                said += f"; by task {signed(float(min(values)))} to {signed(float(max(values)))}"
            lines.append(f"{says}: {held} minus the other tasks' is {said}.")
    return lines


def sections(found: Probed, spec: Spec, params: Settings) -> list[Section]:
    """Nothing where nothing was probed."""
    tasks, method = found.tasks, params.normalize.method
    if not tasks:
        return []
    scores = {c: [found.under(c, task) for task in tasks] for c in found.swap.index.unique("condition")}
    caption = SWAP.format(count=counted(found.samples, "LoRA"), label=spec.label)
    caption += SAME_STATISTICS.format(method=method) if method in SHARED else ""
    caption += f" nonsense: {spec.nonsense}." if NONSENSE in scores else ""
    caption += DROPPED_IS if DROPPED in scores else ""
    blocks: list[Block] = [_matrix(caption, "condition", scores, tasks)]
    swapped = {statistics: [found.under(task, task, statistics) for task in tasks] for statistics in tasks}
    if found.own_minus(STATISTICS_OF_OTHERS) is not None:
        blocks.append(_matrix(STATISTICS, "statistics", swapped, tasks))
    blocks += _contrasts(found)
    if found.unscored:
        lost = counted(found.unscored, "LoRA")
        blocks.append(Text(f"{lost} without a score (what it gives is no number): counted as 0."))
    return [Section("condition", "What the condition does", blocks)]


def _matrix(caption: str, rows_are: str, scores: dict[str, list[float]], tasks: list[str]) -> Table:
    """Row -> its scores on the tasks; bold where the row is the task's own."""
    rows = [[name, *(number(score, 1) for score in cells)] for name, cells in scores.items()]
    own = frozenset((i, 1 + tasks.index(name)) for i, name in enumerate(scores) if name in tasks)
    return Table(caption, [rows_are, *tasks], rows, own)


def _contrasts(found: Probed) -> list[Block]:
    """Own condition minus the others', nonsense and none, own statistics minus the others': a table, and in words."""
    values = {name: v for name in CONTRASTS if (v := found.own_minus(name)) is not None}
    if not values:
        return []
    differences = {name: student(v) for name, v in values.items()}
    rows = [[name, *(signed(float(task)) for task in v), str(differences[name])] for name, v in values.items()]
    against = {name: _against(d, CONTRASTS[name]) for name, d in differences.items()}
    statistics = against.pop(STATISTICS_OF_OTHERS, None)
    words = "A task's own condition " + "; it ".join(against.values()) + "."
    words += f" Under its own condition, a LoRA with its own statistics {statistics}." if statistics else ""
    return [Table(OWN_MINUS.format(fewest=FEWEST), ["own minus", *found.tasks, "mean of tasks"], rows), Text(words)]


def _against(difference: Difference, name: str) -> str:
    """Without an interval there is a figure, and no verdict."""
    if not difference.known:
        return f"is {_said(difference)} from {name}"
    return f"**{difference.word}** {name} ({_said(difference)})"


def _said(difference: Difference) -> str:
    known = f", 95 % interval {signed(difference.low)} to {signed(difference.high)}" if difference.known else ""
    return f"{signed(difference.value)} points{known}"
