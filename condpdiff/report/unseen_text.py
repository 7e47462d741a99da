"""The page of a run of text families: how often is each arm right, on tasks that were never trained on?"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from condpdiff.common.settings import PARAMS
from condpdiff.common.task import Task
from condpdiff.report import studies_section
from condpdiff.report.blocks import Block, Figures, Section, Table, Text
from condpdiff.report.compare import WORDS, number
from condpdiff.report.page import Report
from condpdiff.report.readers import read_csv
from condpdiff.report.revision import revision
from condpdiff.report.svg import LIGHT, Image, figure, image, styled

BEST = "condpdiff_best"
ARMS = {
    "no_lora": "the base model without LoRA, under the fixed head",
    "mean_soup": "the mean of all training tasks' soups, whatever the description",
    "nearest": "the soup of the training task with the most similar description",
    "softmax_nearest": "the four nearest soups, weighted by similarity",
    "ridge": "linear regression from description to soup",
    "kernel_ridge": "the same with a Gaussian kernel",
    "ridge_gaussian": "ridge, with a draw of its errors on left-out training tasks",
    "ridge_swapped": "ridge under another task's description",
    "no_noise": "the generator's mean alone",
    "condpdiff": "generated from the description and noise, the mean over samples",
    BEST: "of the samples the one that is right most often on the task's held-out rows",
    "swapped": "condpdiff under another task's description",
    "noise": "condpdiff under words that mean nothing",
    "own": "the task's own LoRA, fine-tuned to the end on its own rows",
    "cosine": "no LoRA: cosine of text and description, over a threshold that fits the training tasks",
    "classifier@16": "no LoRA: logistic regression on frozen embeddings of 16 labelled rows",
    "classifier@64": "the same of 64 labelled rows",
    "zero@16": "20 steps of fine-tuning from nothing on 16 labelled rows",
    "condpdiff@16": "the same from condpdiff's sample",
    "zero@64": "20 steps of fine-tuning from nothing on 64 labelled rows",
    "condpdiff@64": "the same from condpdiff's sample",
}
LABELS = ("own", "@", BEST)
"""Arms that see labelled rows of the task have one of these in their name."""
STARTS = ("zero", "ridge", "condpdiff")
RIVALS = ("mean_soup", "nearest", "softmax_nearest", "ridge", "kernel_ridge", "cosine")
"""What needs no labelled row of the task and no generator."""
DRAWS = 2000
"""Of the bootstrap over tasks."""
TABLE = (
    "Accuracy in percent on a task's validation rows, of which half are yes: mean over unseen tasks, and over some "
    "tasks that were trained on (seen). In brackets the 95 % interval, by resampling tasks. Bold: the highest of its "
    "column among arms without a labelled row of the task."
)
COST = "Accuracy after further steps of fine-tuning on the task's own rows, mean over unseen tasks."


def build(tasks: Mapping[str, Task], data: Path, seed: int) -> Report:
    """Read `data/eval/<family>/arms.csv` of every family, and say what they show.

    Raises:
        UserError: a file is absent or broken.
    """
    rows = pd.concat([_rows(data / "eval" / name) for name in tasks])
    groups = {name: rows[(rows["family"] == name) & (rows["tier"] == "unseen")] for name in tasks}
    groups |= {f"{n}, seen": g for n in tasks if len(g := rows[(rows["family"] == n) & (rows["tier"] == "train")])}
    found = {name: _means(group, seed) for name, group in groups.items()}
    table = _table(found)
    what = Table("What each arm is.", ["arm", "what it is"], [list(row) for row in ARMS.items()], numeric=False)
    settings: list[Block] = [Text(f"Git revision that the report was made at: {revision()}."),
                Text(PARAMS.read_text(encoding="utf-8").strip(), file="params.yaml")]  # fmt: skip
    sections = [
        Section("choose", "Does the description choose?", [table, what]),
        Section("start", "As a start for fine-tuning", [Figures(COST, [_start(groups[n], n) for n in tasks])]),
        *studies_section.sections(),
        Section("settings", "Settings", settings),
    ]
    ahead = [all(found[n]["condpdiff"][0] > found[n][rival][0] for rival in RIVALS) for n in tasks]
    word = WORDS[0] if all(ahead) else WORDS[2 - any(ahead)]
    tiles = [(name, f"{number(found[name]['condpdiff'][0], 1)} %", "of unseen tasks' rows right") for name in tasks]
    metrics = {_key(n): {arm: round(cell[0], 1) for arm, cell in cells.items()} for n, cells in found.items()}
    frame = pd.DataFrame(
        [(n, arm, *[mean] * 2, low, high) for n in tasks for arm, (mean, low, high) in found[n].items()],
        columns=["task", "arm", "score", "mean", "low", "high"],
    )
    verdict = [line for name in tasks for line in _verdict(name, found[name], len(set(groups[name]["member"])))]
    return Report(verdict, word, tiles, [], sections, table, metrics, frame.round(4))


def _rows(folder: Path) -> pd.DataFrame:
    """The family's rows, condpdiff's as the mean over samples, and the arm BEST beside them."""
    keys = ["family", "member", "tier", "arm"]
    rows = read_csv(folder / "arms.csv", [*keys, "number", "held_out", "accuracy"])
    samples = rows[(rows["arm"] == "condpdiff") & (rows["tier"] != "train")]
    best = samples.loc[samples.groupby("member")["held_out"].idxmax()].assign(arm=BEST)
    return pd.concat([rows, best]).groupby(keys, as_index=False, sort=False)[["accuracy"]].mean()


def _means(rows: pd.DataFrame, seed: int) -> dict[str, tuple[float, float, float]]:
    """Arm -> mean accuracy over tasks, and its interval."""
    cells = rows.pivot_table("accuracy", "member", "arm", sort=False)
    picks = np.random.default_rng(seed).integers(len(cells), size=(DRAWS, len(cells)))
    drawn = {str(arm): np.quantile(cells[arm].to_numpy()[picks].mean(1), [0.025, 0.975]) for arm in cells}
    return {arm: (float(cells[arm].mean()), float(low), float(high)) for arm, (low, high) in drawn.items()}


def _table(found: Mapping[str, Any]) -> Table:
    shown, bold = [], set()
    values = [[cells.get(arm, (math.nan,) * 3) for cells in found.values()] for arm in ARMS]
    for arm, row in zip(ARMS, values, strict=True):
        shown.append([arm, *("–" if math.isnan(v) else f"{v:.1f} ({lo:.0f} to {hi:.0f})" for v, lo, hi in row)])
    for j in range(len(found)):
        free = [(row[j][0], i) for i, (arm, row) in enumerate(zip(ARMS, values, strict=True))
                if not any(part in arm for part in LABELS) and not math.isnan(row[j][0])]  # fmt: skip
        bold.add((max(free)[1], j + 1))
    return Table(TABLE, ["arm", *found], shown, frozenset(bold), frozenset({list(ARMS).index("condpdiff")}))


def _verdict(name: str, cells: Mapping[str, Any], count: int) -> list[str]:
    said = {arm: f"{number(cells[arm][0], 1)} %" for arm in cells}
    return [
        f"On {count} unseen tasks of {name}, condpdiff is right on **{said['condpdiff']}** of rows, under another "
        f"task's description on {said['swapped']}. Ridge has {said['ridge']}, the nearest soup {said['nearest']}, a "
        f"cosine {said['cosine']}, a task's own LoRA {said['own']}.",
        f"From 16 labelled rows, fine-tuning from condpdiff has {said['condpdiff@16']}, from nothing "
        f"{said['zero@16']}, logistic regression {said['classifier@16']}.",
    ]


@styled
def _start(rows: pd.DataFrame, name: str) -> Image:
    """Accuracy over steps of fine-tuning, one line a start."""
    fig, (ax,) = figure(2.9)
    means = rows.groupby("arm")["accuracy"].mean()
    for i, start in enumerate(STARTS):
        steps = sorted(int(str(a).partition("+")[2]) for a in means.index if str(a).startswith(f"{start}+"))
        y = [means["no_lora" if start == "zero" else start], *(means[f"{start}+{s}"] for s in steps)]
        c = LIGHT["condpdiff"] if start == "condpdiff" else list(LIGHT.values())[8 + i]
        ax.plot([0, *steps], y, "-o", color=c, lw=1.6, ms=3.5, label=start)
    ax.set(xlabel="steps of fine-tuning", ylabel="accuracy, percent", title=name)
    return image(fig, f"start-{_key(name)}", f"{name}: accuracy over steps of fine-tuning from each start", legend=3)


def _key(name: str) -> str:
    return name.replace("-", "_").replace(", ", "_")
