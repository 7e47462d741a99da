"""Between two tasks: scores along lambda, what unseen conditions bring, and for styles the images on the way."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from condpdiff.common.errors import UserError
from condpdiff.evaluate.settings import pair_folder
from condpdiff.report.blocks import Block, Figures, Gallery, Section, Table
from condpdiff.report.figures import PANEL
from condpdiff.report.parts import floors_of, label_of, noun_of, number
from condpdiff.report.png import Picture, read_picture
from condpdiff.report.readers import read_csv
from condpdiff.report.svg import LIGHT, SERIES, Image, image, style
from condpdiff.report.tables import Scored

LINES = {"weights": "interpolated weights", "condition": "interpolated condition"}
FIGURE = (
    "LoRAs between two {noun}, λ = 0 being the first and λ = 1 the second, scored on both ({label}): each LoRA (dots) "
    "and their mean (line). Interpolated weights: (1 − λ) θ₁ + λ θ₂ of two generated LoRAs, one of each. "
)
CONDITION = (
    "Interpolated condition: generated, from the same noise at every λ, under what lies between the two conditions, "
    "and denormalised by what lies between the statistics of both; training had no condition there. "
)
LOWER = "Lower is better: a line that rises leaves its style. "
FLOOR = "Dashed: each style's floor, what so few real images of it score. "
HEAD = "Each task is scored with its own head, which was trained with that task's LoRAs alone. "
UNSEEN = (
    "LoRAs from the same noise under conditions that training drew (seen) and under others of the same {noun} "
    "({what}): mean score on the {noun} itself ({label}), of {count} each. So few tell a breakdown, no "
    "small difference."
)
GALLERY = {
    "weights": "Interpolated weights, {one} to {other}",
    "condition": "Interpolated condition, {one} to {other}",
    "unseen_images": "Unseen conditions (draws of held-out images) of {one} and of {other}",
}
GALLERY_ROWS = ": images of the first LoRA of each λ, the same prompt and noise in a row."
SEEN = "condition"
"""Kind that the table holds the unseen ones against: at either end the interpolated condition is a task's own."""
NEW = {
    "unseen_wording": ("other words", "a paraphrase kept out of training, beside the same examples"),
    "unseen_examples": ("other examples", "the same descriptions beside other two-shot draws"),
    "unseen_images": ("held-out images", "draws of images that no LoRA was trained on"),
}
"""Kind of unseen conditions -> its column, and what it has that training never drew."""


@dataclass(frozen=True)
class Between:
    """What the stage interpolate wrote of one pair of tasks."""

    one: str
    other: str
    scores: pd.DataFrame
    """kind, lambda, sample, task, score"""
    strips: dict[str, tuple[list[float], list[tuple[str, list[Picture]]]]] = field(default_factory=dict)
    """Kind -> its lambdas, and of each prompt the pictures along them; of styles alone."""

    def of(self, kind: str, task: str) -> pd.DataFrame:
        """The scores on one of the tasks."""
        return self.scores[(self.scores["kind"] == kind) & (self.scores["task"] == task)]

    @property
    def ends(self) -> dict[str, int]:
        """Task -> the lambda at which a LoRA is its own."""
        return {self.one: 0, self.other: 1}


def read_between(root: Path, pairs: Sequence[tuple[str, str]], images: bool) -> list[Between]:
    """Read and check `root/<one>--<other>/` of every pair.

    Args:
        images: there are images beside the scores.

    Raises:
        UserError: a file is absent or broken, or a task of a pair has no scores.
    """
    return [_read(root / pair_folder(one, other), one, other, images) for one, other in pairs]


def _read(folder: Path, one: str, other: str, images: bool) -> Between:
    path = folder / "scores.csv"
    found = Between(one, other, read_csv(path, ["kind", "lambda", "sample", "task", "score"]))
    for task in (one, other):
        if not len(found.of("weights", task)):
            raise UserError(f"{path}: found no scores of kind 'weights' on {task!r}; run `dvc repro` again")
    if images:
        found.strips.update(_read_strips(folder, f"between-{folder.name}"))
    return found


def _read_strips(folder: Path, name: str) -> dict[str, tuple[list[float], list[tuple[str, list[Picture]]]]]:
    table = read_csv(folder / "images.csv", ["kind", "lambda", "file", "prompt", "seed"])
    strips = {}
    for kind, rows in table.groupby("kind", sort=False):
        prompts = [
            (
                str(each["prompt"].iloc[0]),
                [
                    read_picture(folder / file, f"{name}-{kind}-{i}-{seed}", f"{kind}, λ = {at:g}: {prompt}")
                    for i, (file, seed, at, prompt) in enumerate(
                        zip(each["file"], each["seed"], each["lambda"], each["prompt"], strict=True)
                    )
                ],
            )
            for _, each in rows.groupby("seed", sort=False)
        ]
        strips[str(kind)] = ([float(at) for at in rows["lambda"].unique()], prompts)
    return strips


def sections(pairs: Sequence[Between], evaluations: Sequence[Scored]) -> list[Section]:
    """Nothing where no pair was looked at."""
    if not pairs:
        return []
    lower, label = evaluations[0].lower, label_of(evaluations)
    noun = noun_of(evaluations)
    caption = FIGURE.format(noun=f"{noun}s", label=label)
    caption += CONDITION if any(_has(pair, "condition") for pair in pairs) else ""
    caption += LOWER if lower else HEAD
    floors = floors_of(evaluations)
    caption += FLOOR if floors else ""
    blocks: list[Block] = [Figures(caption.strip(), [figure(pair, label, floors) for pair in pairs])]
    if kinds := [kind for kind in NEW if any(_has(pair, kind) for pair in pairs)]:
        blocks.append(_unseen(pairs, kinds, evaluations, noun, label))
    blocks += [gallery(pair, kind) for pair in pairs for kind in pair.strips]
    return [Section("between", "Between two tasks", blocks)]


def _has(pair: Between, kind: str) -> bool:
    return bool((pair.scores["kind"] == kind).any())


def figure(pair: Between, label: str, floors: Mapping[str, float]) -> Image:
    """Scores on both tasks along lambda, a panel for each kind of interpolation."""
    kinds = [kind for kind in LINES if _has(pair, kind)]
    with style():
        fig = Figure(figsize=(PANEL, 0.9 + 1.9 * len(kinds)), layout="constrained")
        axes = fig.subplots(len(kinds), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for ax, kind in zip(axes, kinds, strict=True):
            for task, name in zip((pair.one, pair.other), SERIES, strict=False):
                rows, colour = pair.of(kind, task), LIGHT[name]
                ax.scatter(rows["lambda"], rows["score"], s=11, color=colour, alpha=0.5, linewidths=0)
                if task in floors:
                    ax.axhline(floors[task], color=colour, lw=0.8, ls="--")
                means = rows.groupby("lambda")["score"].mean()
                ax.plot(means.index, means, "-o", color=colour, lw=1.6, ms=3.5, label=f"scored on {task}")
            ax.set_ylabel(label)
            ax.set_title(LINES[kind])
        axes[-1].set_xlabel(f"λ, from {pair.one} (0) to {pair.other} (1)")
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2, columnspacing=1.2)
        alt = (
            f"{pair.one} to {pair.other}: scores on both along lambda, for {' and for '.join(LINES[k] for k in kinds)}"
        )
        return image(fig, f"between-{pair_folder(pair.one, pair.other)}", alt)


def _unseen(
    pairs: Sequence[Between], kinds: Sequence[str], evaluations: Sequence[Scored], noun: str, label: str
) -> Table:
    """Each task's own scores; one that is in two pairs has LoRAs of both."""
    rows, floors = [], floors_of(evaluations)
    for e in evaluations:
        found = {kind: [score for pair in pairs for score in _own(pair, kind, e.name)] for kind in (SEEN, *kinds)}
        if any(found[kind] for kind in kinds):
            values = [float(np.mean(scores)) if scores else math.nan for scores in found.values()]
            values += [floors[e.name]] if floors else []
            rows.append([e.name, *(number(value, e.decimals) for value in values)])
    count = max(int(pair.scores["sample"].max()) + 1 for pair in pairs)
    what = "; ".join(f"{NEW[kind][0]}: {NEW[kind][1]}" for kind in kinds)
    columns = [noun, "seen", *(NEW[kind][0] for kind in kinds), *(["floor"] if floors else [])]
    return Table(UNSEEN.format(noun=noun, what=what, label=label, count=count), columns, rows)


def _own(pair: Between, kind: str, task: str) -> list[float]:
    """Scores on a task of its own LoRAs; none if the pair is not the task's, or there are no such LoRAs."""
    rows = pair.of(kind, task)
    return rows.loc[rows["lambda"] == pair.ends.get(task, -1), "score"].tolist()


def gallery(pair: Between, kind: str) -> Gallery:
    """Prompts x lambda."""
    lambdas, rows = pair.strips[kind]
    ends = {0.0: f"λ = 0, {pair.one}", 1.0: f"λ = 1, {pair.other}"}
    columns = [ends.get(at, f"{at:.3g}") for at in lambdas]
    caption = GALLERY[kind].format(one=pair.one, other=pair.other) + GALLERY_ROWS
    return Gallery(caption, ["prompt", *columns], rows)
