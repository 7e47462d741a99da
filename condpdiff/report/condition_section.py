"""What the condition does: the swap matrix, and what is lost without a task's own condition."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.evaluate.settings import DROPPED, NONSENSE
from condpdiff.report.blocks import Block, Section, Table, number, signed
from condpdiff.report.evaluation import FEWEST, read_csv, student
from condpdiff.zoo.settings import SHARED

OTHERS, STATISTICS_OF_OTHERS = "other tasks' conditions", "other tasks' statistics"
ENOUGH = 3  # tasks of which chance puts each one's own first in one case of 27


@dataclass(frozen=True)
class Probed:
    """What the stage probe wrote: means over the LoRAs of a cell; empty with `probe.samples: 0`."""

    conditions: pd.DataFrame  # conditions x tasks: scores under the task's own statistics
    statistics: pd.DataFrame  # tasks x tasks: the row's statistics, the column's own condition; NaN: not swapped
    samples: int  # LoRAs a cell
    unscored: int  # LoRAs whose score is not a number; they count as 0

    @property
    def contrasts(self) -> dict[str, pd.DataFrame]:
        """What stands in place of a task's own -> rows x tasks: own score minus that under it, from the same noise."""
        own, mine = np.diag(self.statistics), np.eye(len(self.statistics), dtype=bool)
        under = {OTHERS: self.conditions.loc[self.statistics.index].mask(mine)}
        under |= {name: self.conditions.loc[[name]] for name in (NONSENSE, DROPPED) if name in self.conditions.index}
        under[STATISTICS_OF_OTHERS] = self.statistics.mask(mine)
        return {name: scores.rsub(own) for name, scores in under.items() if scores.notna().any(axis=None)}


def read_probe(root: Path) -> Probed:
    """Read `root/swap.csv`; a UserError if it is absent or broken, or a cell of the matrix is missing."""
    swap = read_csv(root / "swap.csv", ["condition", "statistics", "task", "sample", "score"])
    unscored = int(swap["score"].isna().sum())
    swap["score"] = swap["score"].fillna(0.0)
    rows = swap.groupby(["condition", "statistics", "task"]).size()
    tasks = list(swap["task"].unique())
    names = list(dict.fromkeys([*swap["condition"], *tasks]))
    own_statistics, own_condition = swap.query("statistics == task"), swap.query("condition == task")
    conditions = own_statistics.pivot_table("score", "condition", "task").reindex(index=names, columns=tasks)
    statistics = own_condition.pivot_table("score", "statistics", "task").reindex(index=tasks, columns=tasks)
    absent, others = statistics.isna().to_numpy().sum(), len(tasks) ** 2 - len(tasks)
    if conditions.isna().any(axis=None) or absent not in (0, others) or rows.nunique() > 1:
        raise UserError(f"{root}/swap.csv: not as many rows for every condition and statistics; run `dvc repro` again")
    return Probed(conditions, statistics, swap["sample"].nunique(), unscored)


def effect(found: Probed) -> dict[str, float]:
    """Of metrics.json: own condition minus the other tasks', and own statistics minus the other tasks'."""
    effects, known = {"condition_effect": OTHERS, "statistics_effect": STATISTICS_OF_OTHERS}, found.contrasts
    return {name: round(float(known[c].mean().mean()), 2) for name, c in effects.items() if c in known}


def verdict(found: Probed) -> list[str]:
    """Is the condition used, and do the statistics choose the task? Nothing where none were swapped."""
    lines, count = [], _counted(len(found.statistics), "task")
    for contrast, subject, are, s, held in (
        (OTHERS, "condition", "is", "s", "with the same statistics and noise, own condition"),
        (STATISTICS_OF_OTHERS, "statistics", "are", "", "under a task's own condition, own statistics"),
    ):
        if (minus := found.contrasts.get(contrast)) is None:
            continue
        difference, used = student(minus.mean()), f"The {subject} **choose{s} the task**"
        said = difference.said
        if difference.known:
            says = {
                "beats": used,
                "ties with": f"The {subject} {are} **not measurably used**",
                "loses to": f"The {subject} work{s} **against the task**",
            }[difference.word]
        else:
            said += f"; by task {signed(minus.mean().min())} to {signed(minus.mean().max())}"
            says = f"Whether the {subject} {are} used **can't be told** from {count}"
            if len(found.statistics) >= ENOUGH and (minus.min() > 0).all():
                says = f"{used}, on each of {count} (too few for an interval)"
        lines.append(f"{says}: {held} minus the other tasks' is {said}.")
    return lines


def sections(found: Probed, label: str, method: str) -> list[Section]:
    """Nothing where nothing was probed; `label` says what is scored."""
    if found.statistics.empty:
        return []
    known = found.contrasts
    caption = (
        f"Mean score of {_counted(found.samples, 'LoRA')} a cell: generated under the row's condition, denormalised by "
        f"the column's statistics and scored on it ({label}). Where a column's cells are alike, the statistics make "
        "the LoRA and the condition does not."
    )
    caption += f" With `normalize.method: {method}` all tasks have the same statistics." if method in SHARED else ""
    caption += " nonsense: descriptions of random words." if NONSENSE in known else ""
    caption += " dropped: the null condition that `ldm.condition_dropout` trains." if DROPPED in known else ""
    if found.unscored:
        caption += f" {_counted(found.unscored, 'LoRA')} without a score (what it gives is no number): counted as 0."
    blocks: list[Block] = [_matrix(caption, "condition", found.conditions)]
    if STATISTICS_OF_OTHERS in known:
        caption = "Under the task's own condition, denormalised by the row's statistics. Where these cells differ and "
        caption += "those above do not, the statistics choose the task."
        blocks.append(_matrix(caption, "statistics", found.statistics))
    if known:
        caption = "A task's own score minus that under what the row names, from the same noise. The interval of the "
        caption += f"mean is of Student's t over tasks (95 %); below {FEWEST} tasks there is none."
        rows = [[name, *map(signed, minus.mean()), str(student(minus.mean()))] for name, minus in known.items()]
        blocks.append(Table(caption, ["own minus", *found.conditions, "mean of tasks"], rows))
    return [Section("condition", "What the condition does", blocks)]


def _matrix(caption: str, rows_are: str, scores: pd.DataFrame) -> Table:
    """Rows x tasks; bold where the row is the task's own, which come first."""
    own = frozenset((i, 1 + i) for i in range(scores.shape[1]))
    return Table.of(caption, rows_are, scores.map(number, decimals=1), bold=own)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
