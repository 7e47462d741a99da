"""Reads what merge-eval wrote of styles: Fréchet distances, of which lower is better, and the images themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.report.png import Picture, read_picture
from condpdiff.report.readers import read_csv, read_distances
from condpdiff.report.tables import ARMS as VECTORS
from condpdiff.report.tables import (
    Scored,
    Summary,
    candidates,
    column,
    headline_means,
    pivot,
    read_common,
    read_scores,
)  # fmt: skip
from condpdiff.report.tsne import Points

if TYPE_CHECKING:
    from condpdiff.style.task import Task

ARMS = {  # in the order of every table
    "floor": "real training images, as many as a candidate generates: what so few images of the style itself score",
    **{arm: what for arm, what in VECTORS.items() if arm != "majority"},
    "no_lora": "the base model without LoRA",
}
HEADLINE = ("condpdiff", "original", "soup", "gaussian", "no_lora", "floor")
SHOWN = ("real", "no_lora", "original", "soup", "gaussian", "condpdiff")
"""Columns of the grid of images."""
LABELS = {"fd_lite0": "FD-Lite0", "fd_lite0_96": "FD-Lite0 at 96 pixels", "fid": "FID"}
"""A Fréchet distance is called FID only where Inception's features stand behind it."""


@dataclass(frozen=True)
class StyleEvaluation(Scored):
    """One style."""

    task: "Task"
    prompts: list[str]  # P
    pictures: dict[str, list[Picture]]
    """Column of SHOWN -> [P]: the selected candidate's images, and real ones of the same captions."""
    trajectories: Points

    known: ClassVar[dict[str, str]] = ARMS
    lower: ClassVar[bool] = True
    decimals: ClassVar[int] = 2

    def picked(self, arm: str) -> float:
        """Real images are not selected: the floor is the mean over its draws of them."""
        if arm != "floor":
            return super().picked(arm)
        return float(np.mean(column(self.scores, candidates(self.scores, arm), "validation")))

    @property
    def metric(self) -> str:
        return LABELS[self.task.metrics[0]]

    @property
    def label(self) -> str:
        return f"{self.metric}, lower is better"

    @property
    def doses_scored(self) -> bool:
        return False


def read_style(root: Path, name: str, task: "Task") -> StyleEvaluation:
    """Read and check `root/<name>/`.

    Raises:
        UserError: a file is absent or broken, a column, an arm or an image is missing, or sizes disagree.
    """
    folder = root / name
    common = read_common(folder)
    scores, unscored = _read_distances_to_style(folder / "scores.csv", name, task, common["racing"])
    prompts, pictures = _read_pictures(folder, name)
    trajectories = read_distances(
        folder / "trajectories.csv", folder / "trajectories.safetensors", ["arm", "candidate", "point"]
    )
    return StyleEvaluation(
        name=name, task=task, scores=scores, unscored=unscored, prompts=prompts, pictures=pictures,
        trajectories=trajectories, **common,
    )  # fmt: skip


def _read_distances_to_style(path: Path, name: str, task: "Task", racing: bool) -> tuple[pd.DataFrame, int]:
    """scores.csv, and how many candidates were scored without success: they get the largest distance of all."""
    scores, scored, unscored = read_scores(path, name, task.metrics, ARMS, racing)
    for key in ("validation", *(f"validation_{m}" for m in task.metrics)):
        if not np.isfinite(scores.loc[scored, key]).any():
            raise UserError(f"{path}: {key}: no candidate has a score; run `dvc repro` again")
        scores.loc[scored, key] = scores.loc[scored, key].fillna(scores[key].max())
    return scores, unscored


def _read_pictures(folder: Path, name: str) -> tuple[list[str], dict[str, list[Picture]]]:
    path = folder / "images.csv"
    table = read_csv(path, ["arm", "file", "prompt", "seed"])
    shown = {arm: table[table["arm"] == arm] for arm in SHOWN}
    prompts = [str(prompt) for prompt in shown["condpdiff"]["prompt"]]
    if not prompts:
        raise UserError(f"{path}: found no images of arm 'condpdiff'; run `dvc repro` again")
    for arm, rows in shown.items():
        if len(rows) != len(prompts):
            needed = f"needed: {len(prompts)}, as of condpdiff"
            raise UserError(f"{path}: found {len(rows)} images of arm {arm!r}, {needed}; run `dvc repro` again")
        if list(rows["prompt"].astype(str)) != prompts:
            raise UserError(f"{path}: the prompts of arm {arm!r} are not those of condpdiff; run `dvc repro` again")
    return prompts, {
        arm: [
            read_picture(folder / file, f"{name}-{arm}-{i}", f"{name}, {arm}: {prompt}")
            for i, (file, prompt) in enumerate(zip(rows["file"], prompts, strict=True))
        ]
        for arm, rows in shown.items()
    }


def not_learned(evaluations: Sequence[StyleEvaluation], summary: Summary, margin: float) -> dict[str, str]:
    """Styles whose checkpoints are hardly nearer to the style than the base model is, with the reason.

    Args:
        margin: percent of the way from no LoRA to the floor that the selected checkpoint must have gone.
    """
    picked = pivot(summary, "selected")
    flags = {}
    for e in evaluations:
        best, floor, bare = (picked[arm][e.name] for arm in ("original", "floor", "no_lora"))
        if bare - best < margin / 100 * (bare - floor) or best >= bare:
            flags[e.name] = (
                f"the selected checkpoint's {e.metric} ({best:.2f}) is less than {margin:g} % of the way from no LoRA "
                f"({bare:.2f}) to the floor ({floor:.2f})"
            )
    return flags


def metrics(summary: Summary, flags: dict[str, str]) -> dict[str, dict[str, Any] | int]:
    """What `dvc metrics show` and `dvc exp show` show: style -> arm -> selected, and of several candidates more.

    The means stand beside the arms too, under the keys that every domain has.
    """
    fields = ("selected", "mean", "std", "best")
    tables = {field: pivot(summary, field) for field in fields}
    result: dict[str, dict[str, Any] | int] = {}
    for style, means in headline_means(summary, 3).items():
        cells = {arm: {field: tables[field][arm][style] for field in fields} for arm in HEADLINE}
        result[style] = {
            arm: {k: round(v, 3) for k, v in cell.items() if k == "selected" or not np.isnan(cell["std"])}
            for arm, cell in cells.items()
        } | means
    result["tasks_not_learned"] = len(flags)
    return result
