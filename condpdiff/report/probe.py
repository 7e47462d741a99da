"""What the condition does: the swap matrix, what is lost without a task's own condition, and tasks never trained on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from condpdiff.errors import UserError
from condpdiff.params.normalize import SHARED
from condpdiff.params.probe import DROPPED, NONSENSE
from condpdiff.report.blocks import Block, Section, Table, Text
from condpdiff.report.compare import RESAMPLES, Difference, signed
from condpdiff.report.parts import floors_of, label_of, noun_of, number
from condpdiff.report.readers import read_csv
from condpdiff.report.tables import Scored, candidates, column

FEWEST_TASKS = 4
"""Below it there is no interval: resampled tasks say little, and of three all lie on one side of 0 one time in four."""
OTHERS = "other tasks'"
CONTRASTS = {OTHERS: "the other tasks' conditions", NONSENSE: "nonsense", DROPPED: "no condition"}
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
    "What a {noun}'s own condition adds under its own statistics: its mean score minus that under the row's "
    "condition{lower}. The interval of the mean resamples {noun}s, and LoRAs within them, each paired with the one "
    "from the same noise (95 %); below {fewest} {noun}s there is none."
)
UNSEEN = (
    "Each {noun} left out in turn: autoencoder and denoiser are trained on the other {noun}s alone; what they "
    "generate under the condition of the one left out, {count}, is scored on it ({label}){head}. Its statistics are "
    "guessed from the others': their mean, or their mean weighted by how similar their conditions are. Own soup and "
    "original are what training on the {noun} itself gives. "
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
    """condition, statistics, sample, score"""
    unseen: pd.DataFrame
    """task, arm, statistics, sample, score"""
    unscored: int
    """LoRAs whose score is not a number; they count as the worst."""

    @property
    def tasks(self) -> list[str]:
        """Tasks of the swap matrix."""
        return [str(task) for task in self.swap["statistics"].unique()]

    @property
    def left_out(self) -> list[str]:
        return [str(task) for task in self.unseen["task"].unique()]

    def under(self, condition: str, task: str) -> np.ndarray:
        """Scores [S] on one task under one condition, by sample."""
        rows = self.swap[(self.swap["condition"] == condition) & (self.swap["statistics"] == task)]
        return rows.sort_values("sample")["score"].to_numpy(dtype=np.float64)

    def of(self, arm: tuple[str, str], task: str) -> np.ndarray:
        """Scores of an arm and its statistics on a task that was left out, by sample; none if there is no such arm."""
        rows = self.unseen[(self.unseen["task"] == task) & (self.unseen["arm"] == arm[0])]
        rows = rows[rows["statistics"] == arm[1]]
        return rows.sort_values("sample")["score"].to_numpy(dtype=np.float64)

    def own_minus(self, contrast: str) -> np.ndarray | None:
        """[tasks, S]: score under a task's own condition minus that under the contrast's, from the same noise.

        None where there is nothing to hold it against: a single task, or no such condition.
        """
        known = set(self.swap["condition"])
        found = []
        for task in self.tasks:
            others = [t for t in self.tasks if t != task] if contrast == OTHERS else [contrast]
            if not others or not known >= set(others):
                return None
            found.append(self.under(task, task) - np.mean([self.under(other, task) for other in others], axis=0))
        return np.array(found) if found else None


def read_probe(root: Path, lower: bool) -> Probed:
    """Read and check `root/swap.csv` and `root/unseen.csv`.

    Args:
        lower: a lower score is better.

    Raises:
        UserError: a file is absent or broken, or a cell of the swap matrix is missing.
    """
    swap = read_csv(root / "swap.csv", ["condition", "statistics", "sample", "score"])
    unseen = read_csv(root / "unseen.csv", ["task", "arm", "statistics", "sample", "score"])
    unseen["statistics"] = unseen["statistics"].astype(object).fillna("")  # no LoRA has none
    cells = swap.groupby(["condition", "statistics"]).size()
    complete = swap["condition"].nunique() * swap["statistics"].nunique()
    if len(cells) != complete or cells.nunique() > 1 or not set(swap["statistics"]) <= set(swap["condition"]):
        raise UserError(f"{root}/swap.csv: not as many rows for every condition and statistics; run `dvc repro` again")
    unscored = int(swap["score"].isna().sum() + unseen["score"].isna().sum())
    for table in (swap, unseen):
        table["score"] = table["score"].fillna(table["score"].max() if lower else 0.0)
    return Probed(swap, unseen, unscored)


def interval(values: np.ndarray, lower: bool, seed: int) -> Difference:
    """The mean of differences [tasks, S], and how far it goes when tasks, and samples within them, are drawn anew."""
    tasks, samples = values.shape
    if tasks < FEWEST_TASKS:
        return Difference(float(values.mean()), math.nan, math.nan, lower)
    rng = np.random.default_rng(seed)
    rows = rng.integers(tasks, size=(RESAMPLES, tasks, 1))
    columns = rng.integers(samples, size=(RESAMPLES, tasks, samples))
    low, high = np.percentile(values[rows, columns].mean((1, 2)), [2.5, 97.5])
    return Difference(float(values.mean()), float(low), float(high), lower)


def effect(found: Probed, evaluations: Sequence[Scored]) -> dict[str, float]:
    """`condition_effect` of metrics.json: own condition minus the other tasks', the mean over tasks."""
    values = found.own_minus(OTHERS)
    return {} if values is None else {"condition_effect": round(float(values.mean()), evaluations[0].decimals + 1)}


def verdict(found: Probed, evaluations: Sequence[Scored], seed: int) -> list[str]:
    """One sentence: is the condition used? None where no conditions were swapped."""
    values = found.own_minus(OTHERS)
    if values is None:
        return []
    difference, noun = interval(values, evaluations[0].lower, seed), noun_of(evaluations)
    word = {"beats": "is **used**", "ties with": "is **not measurably used**", "loses to": "works **against its task**"}
    says = f"The condition {word[difference.word]}"
    if math.isnan(difference.low):
        says = f"Whether the condition is used **can't be told** from {_count(len(values), noun)}"
    held = f"own condition minus the other {noun}s' is {_said(difference, evaluations)}"
    return [f"{says}: with the same statistics and noise, {held}."]


def sections(found: Probed, evaluations: Sequence[Scored], method: str, seed: int) -> list[Section]:
    """Nothing where nothing was probed.

    Args:
        method: `normalize.method`.
    """
    if not len(found.swap):
        return []
    blocks = [_swap(found, evaluations, method), *_contrasts(found, evaluations, seed)]
    blocks += _unseen(found, evaluations, method, seed) if found.left_out else []
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


def _contrasts(found: Probed, evaluations: Sequence[Scored], seed: int) -> list[Block]:
    """Own condition minus the others', nonsense and none: a table, and the figures in words."""
    lower, noun = evaluations[0].lower, noun_of(evaluations)
    values = {name: v for name in CONTRASTS if (v := found.own_minus(name)) is not None}
    if not values:
        return []
    differences = {name: interval(v, lower, seed) for name, v in values.items()}
    columns = ["own minus", *found.tasks, f"mean of {noun}s"]
    rows = [[name, *(signed(float(task)) for task in v.mean(1)), str(differences[name])] for name, v in values.items()]
    better = " (negative: the own is better)" if lower else ""
    caption = OWN_MINUS.format(noun=noun, lower=better, fewest=FEWEST_TASKS)
    words = [_against(difference, CONTRASTS[name], evaluations) for name, difference in differences.items()]
    return [Table(caption, columns, rows), Text(f"A {noun}'s own condition " + "; it ".join(words) + ".")]


def _unseen(found: Probed, evaluations: Sequence[Scored], method: str, seed: int) -> list[Block]:
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
    caption = UNSEEN.format(noun=noun, count=_count(count, "LoRA"), label=label_of(evaluations), head=head)
    if method in SHARED:
        counted = f", the checkpoints of the {noun} left out among them" if method == "batch" else ""
        caption += UNSEEN_SHARED.format(noun=noun, counted=counted)
    words = [_never_trained(found, arm[1], title, evaluations, seed) for arm, title in ours.items()]
    columns = ["left out", *tasks, *(["mean"] if len(tasks) > 1 else [])]
    return [Table(caption.strip(), columns, rows, accent=accent), Text(" ".join(words))]


def _never_trained(found: Probed, statistics: str, title: str, evaluations: Sequence[Scored], seed: int) -> str:
    """Does a LoRA generated for a task never trained on beat no LoRA, and what the others' soups give by themselves?"""
    held = []
    for control in (("no_lora", ""), ("soup_of_others", SOUPS[statistics])):
        values = [found.of(("condpdiff", statistics), task) - found.of(control, task) for task in found.left_out]
        held.append(_against(interval(np.array(values), evaluations[0].lower, seed), ARMS[control], evaluations))
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
