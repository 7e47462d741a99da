"""What the condition does: the swap matrix, what is lost without a task's own condition, and tasks never trained on."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.evaluate.settings import DROPPED, NONSENSE
from condpdiff.report.arms import OURS
from condpdiff.report.blocks import Block, Section, Table, Text
from condpdiff.report.compare import FEWEST, Difference, counted, number, signed, student
from condpdiff.report.evaluation import Scale
from condpdiff.report.readers import read_csv
from condpdiff.report.spec import Settings, Spec
from condpdiff.zoo.settings import SHARED

OTHERS = "other tasks' conditions"
STATISTICS_OF_OTHERS = "other tasks' statistics"
CONTRASTS = {
    OTHERS: "the other {noun}s' conditions", NONSENSE: "nonsense", DROPPED: "no condition",
    STATISTICS_OF_OTHERS: "the other {noun}s' statistics",
}  # fmt: skip
SWAP = (
    "Mean score of {count} a cell: generated under the row's condition, denormalised by the statistics of the "
    "column's {noun} and scored on it ({label}), from the same noise in all cells. Bold: the {noun}'s own condition. "
    "Read a column down: where its cells are alike, the statistics make the LoRA and the condition does not."
)
FLOOR = " floor: real images, as many as are generated."
DROPPED_IS = " dropped: the null condition that `ldm.condition_dropout` trains."
SAME_STATISTICS = (
    " With `normalize.method: {method}` all {noun}s have the same statistics, so a column's are its {noun}'s in name "
    "alone, and the condition has to choose."
)
OWN_MINUS = (
    "What a {noun}'s own condition adds under its own statistics, and its own statistics under its own condition: the "
    "mean score minus that under what the row names{lower}, each LoRA paired with the one from the same noise. The "
    "interval of the mean is Student's t over {noun}s (95 %); below {fewest} {noun}s there is none."
)
STATISTICS = (
    "The other way round: generated under the {noun}'s own condition in every cell, denormalised by the statistics of "
    "the row's {noun}, scored on the column's. Bold: its own. Where these cells differ and those above do not, the "
    "statistics choose the {noun}."
)
UNSEEN = (
    "Each {noun} left out in turn: autoencoder and denoiser are trained on the other {noun}s alone, the denoiser for "
    "{steps} steps (`probe.ldm_steps`); what they generate under the condition of the one left out, {count}, is scored "
    "on it ({label}). {head}Its statistics are guessed from the others': their mean, or their mean weighted by how "
    "similar their conditions are. Own soup and original are what training on the {noun} itself gives."
)
UNSEEN_SHARED = " Mean and std are those that the other {noun}s share."
ARMS = {
    ("no_lora", ""): "no LoRA",
    ("soup_of_others", "mean"): "the mean of the others' soups",
    ("soup_of_others", "similar"): "the others' soups weighted by similarity",
    (OURS, "mean"): "condpdiff (mean statistics)",
    (OURS, "similar"): "condpdiff (statistics by similarity)",
    (OURS, "shared"): "condpdiff (shared statistics)",
    ("soup", "own"): "own soup",
}
SOUPS = {"shared": "mean"}
"""Statistics of generated LoRAs -> the average of the others' soups that knows as much, where it has another name."""


@dataclass(frozen=True)
class Probed:
    """What the stage probe wrote, means over the LoRAs of a cell; both are empty with `probe.samples: 0`."""

    swap: pd.Series  # score by condition, statistics and task
    unseen: pd.Series  # score by task left out, arm and statistics
    samples: int  # loRAs a cell
    unscored: int  # loRAs whose score is not a number; they count as the worst

    @property
    def tasks(self) -> list[str]:
        """Tasks of the swap matrix."""
        return list(self.swap.index.unique("task"))

    @property
    def left_out(self) -> list[str]:
        return list(self.unseen.index.unique("task"))

    def under(self, condition: str, task: str, statistics: str | None = None) -> float:
        """Score on one task under a condition and a task's statistics (None: its own); NaN if there is none."""
        return float(self.swap.get((condition, statistics or task, task), math.nan))

    def of(self, arm: tuple[str, str]) -> np.ndarray:
        """Scores of an arm and its statistics on the tasks that were left out; NaN if there is no such arm."""
        return np.array([self.unseen.get((task, *arm), math.nan) for task in self.left_out], dtype=np.float64)

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


def read_probe(root: Path, scale: Scale) -> Probed:
    """Read and check `root/swap.csv` and `root/unseen.csv`.

    Raises:
        UserError: a file is absent or broken, or a cell of the swap matrix is missing.
    """
    swap = read_csv(root / "swap.csv", ["condition", "statistics", "task", "sample", "score"])
    unseen = read_csv(root / "unseen.csv", ["task", "arm", "statistics", "sample", "score"])
    unseen["statistics"] = unseen["statistics"].astype(object).fillna("")  # no LoRA has none
    unscored = int(swap["score"].isna().sum() + unseen["score"].isna().sum())
    for table in (swap, unseen):
        table["score"] = scale.filled(table["score"])
    cells = swap.groupby(["condition", "statistics", "task"], sort=False)["score"]
    arms = unseen.groupby(["task", "arm", "statistics"], sort=False)["score"]
    tasks, conditions, sizes = set(swap["task"]), set(swap["condition"]), cells.size()
    needed = {(condition, task, task) for condition in conditions for task in tasks}
    if (swap["statistics"] != swap["task"]).any():
        needed |= {(task, other, task) for other in tasks for task in tasks}
    if set(sizes.index) != needed or sizes.nunique() > 1 or not tasks <= conditions:
        raise UserError(f"{root}/swap.csv: not as many rows for every condition and statistics; run `dvc repro` again")
    return Probed(cells.mean(), arms.mean(), int(swap["sample"].nunique()), unscored)


def effect(found: Probed, spec: Spec) -> dict[str, float]:
    """Of metrics.json: own condition minus the other tasks', and own statistics minus the other tasks'."""
    effects = {"condition_effect": OTHERS, "statistics_effect": STATISTICS_OF_OTHERS}
    known = {name: v for name, contrast in effects.items() if (v := found.own_minus(contrast)) is not None}
    return {name: round(float(values.mean()), spec.scale.decimals + 1) for name, values in known.items()}


def verdict(found: Probed, spec: Spec) -> list[str]:
    """Is the condition used, and do the statistics choose the task? Nothing where none were swapped."""
    noun, lines = spec.scale.noun, []
    for contrast, subject, are, work, used, held in (
        (OTHERS, "condition", "is", "works", "is **used**", "with the same statistics and noise, own condition"),
        (STATISTICS_OF_OTHERS, "statistics", "are", "work", f"**choose the {noun}**",
         f"under a {noun}'s own condition, own statistics"),
    ):  # fmt: skip
        if (values := found.own_minus(contrast)) is not None:
            difference = student(values, spec.scale.lower)
            says = {
                "beats": f"The {subject} {used}",
                "ties with": f"The {subject} {are} **not measurably used**",
                "loses to": f"The {subject} {work} **against the {noun}**",
            }[difference.word]
            said = _said(difference, spec)
            if not difference.known:
                says = f"Whether the {subject} {are} used **can't be told** from {counted(len(values), noun)}"
                said += f"; by {noun} {signed(float(min(values)))} to {signed(float(max(values)))}"
            lines.append(f"{says}: {held} minus the other {noun}s' is {said}.")
    return lines


def sections(found: Probed, spec: Spec, params: Settings) -> list[Section]:
    """Nothing where nothing was probed."""
    noun, tasks, method = spec.scale.noun, found.tasks, params.normalize.method
    if not tasks:
        return []
    scores = {c: [found.under(c, task) for task in tasks] for c in found.swap.index.unique("condition")}
    caption = SWAP.format(count=counted(found.samples, "LoRA"), noun=noun, label=spec.label)
    caption += SAME_STATISTICS.format(method=method, noun=noun) if method in SHARED else ""
    caption += f" nonsense: {spec.nonsense}." if NONSENSE in scores else ""
    caption += DROPPED_IS if DROPPED in scores else ""
    if spec.floors:
        scores["floor"] = [spec.floors[task] for task in tasks]
        caption += FLOOR
    blocks: list[Block] = [_matrix(caption, "condition", scores, tasks, spec.scale.decimals)]
    swapped = {statistics: [found.under(task, task, statistics) for task in tasks] for statistics in tasks}
    if found.own_minus(STATISTICS_OF_OTHERS) is not None:
        blocks.append(_matrix(STATISTICS.format(noun=noun), "statistics", swapped, tasks, spec.scale.decimals))
    blocks += _contrasts(found, spec)
    blocks += _unseen(found, spec, params) if found.left_out else []
    if found.unscored:
        lost = counted(found.unscored, "LoRA")
        blocks.append(Text(f"{lost} without a score (what it gives is no number): counted as {spec.scale.worst}."))
    return [Section("condition", "What the condition does", blocks)]


def _matrix(caption: str, rows_are: str, scores: dict[str, list[float]], tasks: list[str], decimals: int) -> Table:
    """Row -> its scores on the tasks; bold where the row is the task's own."""
    rows = [[name, *(number(score, decimals) for score in cells)] for name, cells in scores.items()]
    own = frozenset((i, 1 + tasks.index(name)) for i, name in enumerate(scores) if name in tasks)
    return Table(caption, [rows_are, *tasks], rows, own)


def _contrasts(found: Probed, spec: Spec) -> list[Block]:
    """Own condition minus the others', nonsense and none, own statistics minus the others': a table, and in words."""
    noun = spec.scale.noun
    values = {name: v for name in CONTRASTS if (v := found.own_minus(name)) is not None}
    if not values:
        return []
    differences = {name: student(v, spec.scale.lower) for name, v in values.items()}
    rows = [
        [name.replace("task", noun), *(signed(float(task)) for task in v), str(differences[name])]
        for name, v in values.items()
    ]
    better = " (negative: the own is better)" if spec.scale.lower else ""
    caption = OWN_MINUS.format(noun=noun, lower=better, fewest=FEWEST)
    against = {name: _against(d, CONTRASTS[name].format(noun=noun), spec) for name, d in differences.items()}
    statistics = against.pop(STATISTICS_OF_OTHERS, None)
    words = f"A {noun}'s own condition " + "; it ".join(against.values()) + "."
    words += f" Under its own condition, a LoRA with its own statistics {statistics}." if statistics else ""
    return [Table(caption, ["own minus", *found.tasks, f"mean of {noun}s"], rows), Text(words)]


def _unseen(found: Probed, spec: Spec, params: Settings) -> list[Block]:
    noun, tasks = spec.scale.noun, found.left_out
    evaluations = {e.name: e for e in spec.evaluations}
    arms = {arm: title for arm, title in ARMS.items() if not np.isnan(found.of(arm)).any()}
    means = {title: list(found.of(arm)) for arm, title in arms.items()}
    means["original, mean"] = [float(np.mean(evaluations[task].values("original"))) for task in tasks]
    if spec.floors:
        means["floor"] = [spec.floors[task] for task in tasks]
    columns = ["left out", *tasks, *(["mean"] if len(tasks) > 1 else [])]
    rows = [
        [title, *(number(x, spec.scale.decimals) for x in [*each, float(np.mean(each))])][: len(columns)]
        for title, each in means.items()
    ]
    ours = {arm[1]: title for arm, title in arms.items() if arm[0] == OURS}
    accent = frozenset(list(means).index(title) for title in ours.values())
    head = f"{spec.head} " if spec.head else ""
    count, steps = counted(found.samples, "LoRA"), params.probe.ldm_steps
    caption = UNSEEN.format(noun=noun, count=count, label=spec.label, head=head, steps=steps)
    caption += UNSEEN_SHARED.format(noun=noun) if params.normalize.method in SHARED else ""
    words = []
    for statistics, title in ours.items():  # do they beat no LoRA, and what the others' soups give by themselves?
        held = []
        for control in (("no_lora", ""), ("soup_of_others", SOUPS.get(statistics, statistics))):
            difference = student(found.of((OURS, statistics)) - found.of(control), spec.scale.lower)
            held.append(_against(difference, ARMS[control], spec))
        words.append(f"For a {noun} never trained on, {title} {' and '.join(held)}.")
    return [Table(caption, columns, rows, accent=accent), Text(" ".join(words))]


def _against(difference: Difference, name: str, spec: Spec) -> str:
    """Without an interval there is a figure, and no verdict."""
    if not difference.known:
        return f"is {_said(difference, spec)} from {name}"
    return f"**{difference.word}** {name} ({_said(difference, spec)})"


def _said(difference: Difference, spec: Spec) -> str:
    known = f", 95 % interval {signed(difference.low)} to {signed(difference.high)}" if difference.known else ""
    better = ", lower is better" if spec.scale.lower else ""
    return f"{signed(difference.value)} {spec.unit}{better}{known}"
