"""Between two tasks: scores along lambda, what unseen conditions bring, and perhaps the images on the way."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.evaluate.settings import pair_folder
from condpdiff.report import svg
from condpdiff.report.arms import OURS
from condpdiff.report.blocks import Block, Figures, Section, Table
from condpdiff.report.compare import number
from condpdiff.report.figures import cloud, colour
from condpdiff.report.png import Picture, read_picture
from condpdiff.report.readers import read_csv
from condpdiff.report.spec import Settings, Spec
from condpdiff.report.svg import Image, styled

LINES = {"weights": "interpolated weights", "condition": "interpolated condition"}
FIGURE = (
    "LoRAs between two {noun}s, λ = 0 being the first and λ = 1 the second, scored on both ({label}): each LoRA (dots) "
    "and their mean (line). Interpolated weights: (1 − λ) θ₁ + λ θ₂ of two generated LoRAs, one of each. "
)
CONDITION = (
    "Interpolated condition: generated, from the same noise at every λ, under what lies between the two conditions, "
    "and denormalised by what lies between the statistics of both; training had no condition there. "
)
LOWER = "Lower is better: a line that rises leaves its {noun}. "
FLOOR = "Dashed: each {noun}'s floor, what so few real images of it score. "
UNSEEN = (
    "LoRAs from the same noise under conditions that training drew (seen) and under others of the same {noun} "
    "({what}): mean score on that {noun} ({label}), of {count} each. So few tell a breakdown, no small difference."
)
GALLERY = "{title}, {one} to {other}: images of the first LoRA of each λ, the same prompt and noise in a row."
SEEN = "condition"
"""Kind that the table holds the unseen ones against: at either end the interpolated condition is a task's own."""
NEW = {
    "unseen_wording": ("other words", "a paraphrase kept out of training, beside the same examples"),
    "unseen_examples": ("other examples", "the same descriptions beside other two-shot draws"),
    "unseen_images": ("held-out images", "draws of images that no LoRA was trained on"),
}
"""Kind of unseen conditions -> its column, and what it has that training never drew."""


@dataclass(frozen=True)
class Pair:
    """What the stage interpolate wrote of one pair of tasks."""

    one: str
    other: str
    scores: pd.DataFrame  # kind, lambda, sample, task, score
    galleries: list[Table]  # images along lambda, a table for each kind; only where a domain has images

    def of(self, kind: str, task: str) -> pd.DataFrame:
        """The scores on one of the tasks."""
        return self.scores[(self.scores["kind"] == kind) & (self.scores["task"] == task)]

    def own(self, kind: str, task: str) -> list[float]:
        """Scores on a task of its own LoRAs; none if the pair is not the task's, or there are no such LoRAs."""
        rows, ends = self.of(kind, task), {self.one: 0, self.other: 1}
        return rows.loc[rows["lambda"] == ends.get(task, -1), "score"].tolist()


def read_pairs(root: Path, pairs: Sequence[tuple[str, str]], images: bool) -> list[Pair]:
    """Read and check `root/<one>--<other>/` of every pair.

    Args:
        images: there are images beside the scores.

    Raises:
        UserError: a file is absent or broken, or a task of a pair has no scores.
    """
    found = []
    for one, other in pairs:
        folder = root / pair_folder(one, other)
        scores = read_csv(folder / "scores.csv", ["kind", "lambda", "sample", "task", "score"])
        found.append(Pair(one, other, scores, _galleries(folder, one, other) if images else []))
        for task in (one, other):
            if not len(found[-1].of("weights", task)):
                raise UserError(
                    f"{folder}/scores.csv: found no scores of kind 'weights' on {task!r}; run `dvc repro` again"
                )
    return found


def _galleries(folder: Path, one: str, other: str) -> list[Table]:
    """Prompts x lambda of every kind."""
    table = read_csv(folder / "images.csv", ["kind", "lambda", "file", "prompt", "seed"])
    ends = {0.0: f"λ = 0, {one}", 1.0: f"λ = 1, {other}"}
    galleries = []
    for kind, rows in table.groupby("kind", sort=False):
        lines: dict[int, list[str | Picture]] = {}
        for row in rows.to_dict("records"):
            line = lines.setdefault(row["seed"], [str(row["prompt"])])
            name = f"between-{folder.name}-{kind}-{len(line) - 1}-{row['seed']}"
            alt = f"{kind}, λ = {row['lambda']:g}: {row['prompt']}"
            line.append(read_picture(folder / row["file"], name, alt))
        columns = ["prompt", *(ends.get(at, f"{at:.3g}") for at in rows["lambda"].unique())]
        title = LINES.get(str(kind), "unseen conditions").capitalize()
        caption = GALLERY.format(title=title, one=one, other=other)
        galleries.append(Table(caption, columns, list(lines.values()), pictures=True))
    return galleries


def sections(spec: Spec, params: Settings) -> list[Section]:
    """Nothing where no pair was looked at."""
    names = [e.name for e in spec.evaluations]
    pairs = read_pairs(spec.data / "interpolation", params.interpolate.pairs_of(names), spec.strips)
    if not pairs:
        return []
    noun, kinds = spec.scale.noun, {kind for pair in pairs for kind in pair.scores["kind"]}
    caption = FIGURE.format(noun=noun, label=spec.label)
    caption += CONDITION if "condition" in kinds else ""
    caption += LOWER.format(noun=noun) if spec.scale.lower else ""
    caption += FLOOR.format(noun=noun) if spec.floors else ""
    caption += spec.head
    blocks: list[Block] = [Figures(caption.strip(), [figure(pair, spec.label, spec.floors) for pair in pairs])]
    if new := [kind for kind in NEW if kind in kinds]:
        blocks.append(_unseen(pairs, new, spec))
    blocks += [gallery for pair in pairs for gallery in pair.galleries]
    return [Section("between", f"Between two {noun}s", blocks)]


@styled
def figure(pair: Pair, label: str, floors: Mapping[str, float]) -> Image:
    """Scores on both tasks along lambda, a panel for each kind of interpolation."""
    kinds = [kind for kind in LINES if (pair.scores["kind"] == kind).any()]
    fig, axes = svg.figure(0.9 + 1.9 * len(kinds), len(kinds))
    for ax, kind in zip(axes, kinds, strict=True):
        ax.sharey(axes[0])
        for task, arm in ((pair.one, "original"), (pair.other, OURS)):
            cloud(ax, pair.of(kind, task), "lambda", "score", arm, f"scored on {task}")
            if task in floors:
                ax.axhline(floors[task], color=colour(arm), lw=0.8, ls="--")
        ax.set(ylabel=label, title=LINES[kind])
    axes[-1].set_xlabel(f"λ, from {pair.one} (0) to {pair.other} (1)")
    alt = f"{pair.one} to {pair.other}: scores on both along lambda, for {' and for '.join(LINES[k] for k in kinds)}"
    return svg.image(fig, f"between-{pair_folder(pair.one, pair.other)}", alt, legend=2)


def _unseen(pairs: Sequence[Pair], kinds: Sequence[str], spec: Spec) -> Table:
    """Each task's own scores; one that is in two pairs has LoRAs of both."""
    rows, floors, noun = [], spec.floors, spec.scale.noun
    for e in spec.evaluations:
        found = {kind: [score for pair in pairs for score in pair.own(kind, e.name)] for kind in (SEEN, *kinds)}
        if any(found[kind] for kind in kinds):
            values = [float(np.mean(scores)) if scores else math.nan for scores in found.values()]
            values += [floors[e.name]] if floors else []
            rows.append([e.name, *(number(value, e.scale.decimals) for value in values)])
    count = max(int(pair.scores["sample"].max()) + 1 for pair in pairs)
    what = "; ".join(f"{NEW[kind][0]}: {NEW[kind][1]}" for kind in kinds)
    columns = [noun, "seen", *(NEW[kind][0] for kind in kinds), *(["floor"] if floors else [])]
    return Table(UNSEEN.format(noun=noun, what=what, label=spec.label, count=count), columns, rows)
