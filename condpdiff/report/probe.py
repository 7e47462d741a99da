"""What the condition does: the swap matrix, what is lost without a task's own condition, and tasks never trained on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.evaluate.settings import DROPPED, NONSENSE, Probe
from condpdiff.report.blocks import Block, Section, Table, Text
from condpdiff.report.compare import FEWEST, Difference, signed, student
from condpdiff.report.parts import floors_of, label_of, noun_of, number
from condpdiff.report.readers import read_csv
from condpdiff.report.tables import Scored, candidates, column
from condpdiff.zoo.settings import SHARED

OTHERS = "other tasks' conditions"
STATISTICS_OF_OTHERS = "other tasks' statistics"
CONTRASTS = {
    OTHERS: "the other tasks' conditions", NONSENSE: "nonsense", DROPPED: "no condition",
    STATISTICS_OF_OTHERS: "the other tasks' statistics",
}  # fmt: skip
SWAP = (
    "Mean score of {count} a cell: generated under the row's condition, denormalised by the statistics of the "
    "column's {noun} and scored on it ({label}), from the same noise in all cells. Bold: the {noun}'s own condition. "
    "Read a column down: where its cells are alike, the statistics make the LoRA and the condition does not. "
)
NONSENSE_OF = {False: "nonsense: descriptions of random words. ", True: "nonsense: images of noise. "}
FLOOR = "floor: real images, as many as are generated. "
DROPPED_IS = "dropped: the null condition that `ldm.condition_dropout` trains. "
SAME_STATISTICS = (
    "With `normalize.method: {method}` all {noun}s have the same statistics, so a column's are its {noun}'s in name "
    "alone, and the condition has to choose. "
)
OWN_MINUS = (
    "What a {noun}'s own condition adds under its own statistics, and its own statistics under its own condition: the "
    "mean score minus that under what the row names{lower}, each LoRA paired with the one from the same noise. The "
    "interval of the mean is Student's t over {noun}s (95 %); below {fewest} {noun}s there is none."
)
STATISTICS = (
    "The other way round: generated under the {noun}'s own condition in every cell, denormalised by the statistics of "
    "the row's {noun}, scored on the column's. Bold: its own. Where these cells differ and those above do not, the "
    "statistics choose the {noun}. "
)
UNSEEN = (
    "Each {noun} left out in turn: autoencoder and denoiser are trained on the other {noun}s alone, the denoiser for "
    "{steps} steps (`probe.ldm_steps`); what they generate under the condition of the one left out, {count}, is scored "
    "on it ({label}){head}. Its statistics are guessed from the others': their mean, or their mean weighted by how "
    "similar their conditions are. Own soup and original are what training on the {noun} itself gives. "
)
UNSEEN_SHARED = "Mean and std are those that all {noun}s share{counted}. "
ARMS = {
    ("no_lora", ""): "no LoRA",
    ("soup_of_others", "mean"): "the mean of the others' soups",
    ("soup_of_others", "similar"): "the others' soups weighted by similarity",
    ("condpdiff", "mean"): "condpdiff (mean statistics)",
    ("condpdiff", "similar"): "condpdiff (statistics by similarity)",
    ("condpdiff", "shared"): "condpdiff (shared statistics)",
    ("soup", "own"): "own soup",
}
SOUPS = {"mean": "mean", "similar": "similar", "shared": "mean"}
"""Statistics of generated LoRAs -> the average of the others' soups that costs no generator and knows as much."""


@dataclass(frozen=True)
class Probed:
    """What the stage probe wrote; both tables are empty with `probe.samples: 0`."""

    swap: pd.DataFrame
    """condition, statistics, task, sample, score"""
    unseen: pd.DataFrame
    """task, arm, statistics, sample, score"""
    unscored: int
    """LoRAs whose score is not a number; they count as the worst."""

    @property
    def tasks(self) -> list[str]:
        """Tasks of the swap matrix."""
        return [str(task) for task in self.swap["task"].unique()]

    @property
    def statistics_swapped(self) -> bool:
        """There are scores under other tasks' statistics."""
        return bool((self.swap["statistics"] != self.swap["task"]).any())

    @property
    def left_out(self) -> list[str]:
        return [str(task) for task in self.unseen["task"].unique()]

    def under(self, condition: str, task: str, statistics: str | None = None) -> np.ndarray:
        """Scores [S] on one task under a condition and a task's statistics (None: its own), by sample."""
        rows = self.swap[(self.swap["condition"] == condition) & (self.swap["task"] == task)]
        rows = rows[rows["statistics"] == (statistics or task)]
        return rows.sort_values("sample")["score"].to_numpy(dtype=np.float64)

    def of(self, arm: tuple[str, str], task: str) -> np.ndarray:
        """Scores of an arm and its statistics on a task that was left out, by sample; none if there is no such arm."""
        rows = self.unseen[(self.unseen["task"] == task) & (self.unseen["arm"] == arm[0])]
        rows = rows[rows["statistics"] == arm[1]]
        return rows.sort_values("sample")["score"].to_numpy(dtype=np.float64)

    def own_minus(self, contrast: str) -> np.ndarray | None:
        """[tasks, S]: score under a task's own condition and statistics minus that under the contrast's, from the same
        noise.

        None where there is nothing to hold it against: a single task, or no such condition or statistics.
        """
        found = []
        for task in self.tasks:
            others = [name for name in self.tasks if name != task]
            if contrast == STATISTICS_OF_OTHERS:
                cells = [self.under(task, task, other) for other in others]
            else:
                cells = [self.under(name, task) for name in (others if contrast == OTHERS else [contrast])]
            if not cells or not all(map(len, cells)):
                return None
            found.append(self.under(task, task) - np.mean(cells, axis=0))
        return np.array(found) if found else None


def read_probe(root: Path, lower: bool) -> Probed:
    """Read and check `root/swap.csv` and `root/unseen.csv`.

    Args:
        lower: a lower score is better.

    Raises:
        UserError: a file is absent or broken, or a cell of the swap matrix is missing.
    """
    swap = read_csv(root / "swap.csv", ["condition", "statistics", "task", "sample", "score"])
    unseen = read_csv(root / "unseen.csv", ["task", "arm", "statistics", "sample", "score"])
    unseen["statistics"] = unseen["statistics"].astype(object).fillna("")  # no LoRA has none
    cells = swap.groupby(["condition", "statistics", "task"]).size()
    tasks, conditions = list(swap["task"].unique()), list(swap["condition"].unique())
    needed = {(condition, task, task) for condition in conditions for task in tasks}
    if (swap["statistics"] != swap["task"]).any():
        needed |= {(task, other, task) for other in tasks for task in tasks}
    if set(cells.index) != needed or cells.nunique() > 1 or not set(tasks) <= set(conditions):
        raise UserError(f"{root}/swap.csv: not as many rows for every condition and statistics; run `dvc repro` again")
    unscored = int(swap["score"].isna().sum() + unseen["score"].isna().sum())
    for table in (swap, unseen):
        table["score"] = table["score"].fillna(table["score"].max() if lower else 0.0)
    return Probed(swap, unseen, unscored)


SAYS = {
    OTHERS: {
        "beats": "The condition is **used**",
        "ties with": "The condition is **not measurably used**",
        "loses to": "The condition works **against the {noun}**",
        "unknown": "Whether the condition is used **can't be told** from {count}",
        "held": "with the same statistics and noise, own condition",
    },
    STATISTICS_OF_OTHERS: {
        "beats": "The statistics **choose the {noun}**",
        "ties with": "The statistics are **not measurably used**",
        "loses to": "The statistics work **against the {noun}**",
        "unknown": "Whether the statistics are used **can't be told** from {count}",
        "held": "under a {noun}'s own condition, own statistics",
    },
}
"""Contrast -> what the verdict says of it, by the word of its difference."""
EFFECTS = {"condition_effect": OTHERS, "statistics_effect": STATISTICS_OF_OTHERS}
"""Of metrics.json -> the contrast that it is the mean over tasks of."""


def effect(found: Probed, evaluations: Sequence[Scored]) -> dict[str, float]:
    """`EFFECTS`: own condition minus the other tasks', and own statistics minus the other tasks'."""
    known = {name: v for name, contrast in EFFECTS.items() if (v := found.own_minus(contrast)) is not None}
    return {name: round(float(values.mean()), evaluations[0].decimals + 1) for name, values in known.items()}


def verdict(found: Probed, evaluations: Sequence[Scored]) -> list[str]:
    """Is the condition used, and do the statistics choose the task? Nothing where none were swapped."""
    noun, lines = noun_of(evaluations), []
    for contrast, says in SAYS.items():
        if (values := found.own_minus(contrast)) is None:
            continue
        difference = _over_tasks(values, evaluations)
        line = says["unknown" if math.isnan(difference.low) else difference.word] + ": " + says["held"]
        line = line.format(noun=noun, count=_count(len(values), noun))
        lines.append(f"{line} minus the other {noun}s' is {_said(difference, evaluations)}.")
    return lines


def _over_tasks(values: np.ndarray, evaluations: Sequence[Scored]) -> Difference:
    """Of differences [tasks, S]."""
    return student(values.mean(1), evaluations[0].lower)


def sections(found: Probed, evaluations: Sequence[Scored], method: str, settings: Probe) -> list[Section]:
    """Nothing where nothing was probed.

    Args:
        method: `normalize.method`.
    """
    if not len(found.swap):
        return []
    blocks: list[Block] = [_swap(found, evaluations, method)]
    blocks += [_statistics(found, evaluations)] if found.statistics_swapped else []
    blocks += _contrasts(found, evaluations)
    blocks += _unseen(found, evaluations, method, settings.ldm_steps) if found.left_out else []
    if found.unscored:
        worst = "the worst" if evaluations[0].lower else "0"
        says = "have no score (what they give is no number); they count as"
        if found.unscored == 1:
            says = "has no score (what it gives is no number); it counts as"
        blocks.append(Text(f"{_count(found.unscored, 'LoRA')} {says} {worst}."))
    return [Section("condition", "What the condition does", blocks)]


def _swap(found: Probed, evaluations: Sequence[Scored], method: str) -> Table:
    lower, noun = evaluations[0].lower, noun_of(evaluations)
    conditions = list(dict.fromkeys(found.swap["condition"]))
    decimals = {e.name: e.decimals for e in evaluations}
    rows = [[c, *(number(float(found.under(c, t).mean()), decimals[t]) for t in found.tasks)] for c in conditions]
    bold = frozenset((conditions.index(task), 1 + i) for i, task in enumerate(found.tasks))
    count = len(found.under(conditions[0], found.tasks[0]))
    caption = SWAP.format(count=_count(count, "LoRA"), noun=noun, label=label_of(evaluations))
    caption += SAME_STATISTICS.format(method=method, noun=noun) if method in SHARED else ""
    caption += NONSENSE_OF[lower] if NONSENSE in conditions else ""
    caption += DROPPED_IS if DROPPED in conditions else ""
    if floors := floors_of(evaluations):
        rows.append(["floor", *(number(floors[t], decimals[t]) for t in found.tasks)])
        caption += FLOOR
    return Table(caption.strip(), ["condition", *found.tasks], rows, bold)


def _statistics(found: Probed, evaluations: Sequence[Scored]) -> Table:
    decimals = {e.name: e.decimals for e in evaluations}
    rows = [[s, *(number(float(found.under(t, t, s).mean()), decimals[t]) for t in found.tasks)] for s in found.tasks]
    own = frozenset((i, 1 + i) for i in range(len(found.tasks)))
    caption = STATISTICS.format(noun=noun_of(evaluations)).strip()
    return Table(caption, ["statistics", *found.tasks], rows, own)


def _contrasts(found: Probed, evaluations: Sequence[Scored]) -> list[Block]:
    """Own condition minus the others', nonsense and none, own statistics minus the others': a table, and in words."""
    lower, noun = evaluations[0].lower, noun_of(evaluations)
    values = {name: v for name in CONTRASTS if (v := found.own_minus(name)) is not None}
    if not values:
        return []
    differences = {name: _over_tasks(v, evaluations) for name, v in values.items()}
    columns = ["own minus", *found.tasks, f"mean of {noun}s"]
    rows = [
        [name.replace("task", noun), *(signed(float(task)) for task in v.mean(1)), str(differences[name])]
        for name, v in values.items()
    ]
    better = " (negative: the own is better)" if lower else ""
    caption = OWN_MINUS.format(noun=noun, lower=better, fewest=FEWEST)
    against = {name: _against(d, CONTRASTS[name].replace("task", noun), evaluations) for name, d in differences.items()}
    statistics = against.pop(STATISTICS_OF_OTHERS, None)
    words = f"A {noun}'s own condition " + "; it ".join(against.values()) + "."
    words += f" Under its own condition, a LoRA with its own statistics {statistics}." if statistics else ""
    return [Table(caption, columns, rows), Text(words)]


def _unseen(found: Probed, evaluations: Sequence[Scored], method: str, steps: int) -> list[Block]:
    lower, noun = evaluations[0].lower, noun_of(evaluations)
    tasks = {e.name: e for e in evaluations if e.name in found.left_out}
    arms = {arm: title for arm, title in ARMS.items() if all(len(found.of(arm, task)) for task in tasks)}
    means = {title: [float(found.of(arm, task).mean()) for task in tasks] for arm, title in arms.items()}
    means["original, mean"] = [
        float(np.mean(column(e.scores, candidates(e.scores, "original"), "validation"))) for e in tasks.values()
    ]
    if floors := floors_of(evaluations):
        means["floor"] = [floors[task] for task in tasks]
    rows = [
        [title, *(number(x, e.decimals) for x, e in zip(each, tasks.values(), strict=True))]
        + ([number(float(np.mean(each)), evaluations[0].decimals)] if len(tasks) > 1 else [])
        for title, each in means.items()
    ]
    ours = {arm: title for arm, title in arms.items() if arm[0] == "condpdiff"}
    accent = frozenset(i for i, row in enumerate(rows) if row[0] in ours.values())
    count = max(len(found.of(arm, task)) for arm in ours for task in tasks)
    head = "" if lower else " with its own head"
    caption = UNSEEN.format(noun=noun, count=_count(count, "LoRA"), label=label_of(evaluations), head=head, steps=steps)
    if method in SHARED:
        counted = f", the checkpoints of the {noun} left out among them" if method == "batch" else ""
        caption += UNSEEN_SHARED.format(noun=noun, counted=counted)
    words = [_never_trained(found, arm[1], title, evaluations) for arm, title in ours.items()]
    columns = ["left out", *tasks, *(["mean"] if len(tasks) > 1 else [])]
    return [Table(caption.strip(), columns, rows, accent=accent), Text(" ".join(words))]


def _never_trained(found: Probed, statistics: str, title: str, evaluations: Sequence[Scored]) -> str:
    """Does a LoRA generated for a task never trained on beat no LoRA, and what the others' soups give by themselves?"""
    held = []
    for control in (("no_lora", ""), ("soup_of_others", SOUPS[statistics])):
        values = [found.of(("condpdiff", statistics), task) - found.of(control, task) for task in found.left_out]
        held.append(_against(_over_tasks(np.array(values), evaluations), ARMS[control], evaluations))
    return f"For a {noun_of(evaluations)} never trained on, {title} {' and '.join(held)}."


def _against(difference: Difference, name: str, evaluations: Sequence[Scored]) -> str:
    """Without an interval there is a figure, and no verdict."""
    if math.isnan(difference.low):
        return f"is {_said(difference, evaluations)} from {name}"
    return f"**{difference.word}** {name} ({_said(difference, evaluations)})"


def _said(difference: Difference, evaluations: Sequence[Scored]) -> str:
    unit = f"{evaluations[0].metric}, lower is better" if evaluations[0].lower else "points"
    known = (
        "" if math.isnan(difference.low) else f", 95 % interval {signed(difference.low)} to {signed(difference.high)}"
    )
    return f"{signed(difference.value)} {unit}{known}"


def _count(number_: int, noun: str) -> str:
    return f"{number_} {noun}{'' if number_ == 1 else 's'}"
