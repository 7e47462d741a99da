"""Training curves of every stage, and the tables that `dvc plots` draws."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from condpdiff.report.readers import read_csv
from condpdiff.report.tables import Scored, Summary


def read_task_curves(zoo: Path, tasks: list[str], file: str, y: str) -> pd.DataFrame:
    """`data/zoo/<task>/<file>` of all tasks in one frame: task, step, <y>."""
    return pd.concat([read_csv(zoo / t / file, ["task", "step", y])[["task", "step", y]] for t in tasks])


def read_curve(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """A network's curve and its columns to draw: `loss`, and `validation` if the stage measured one."""
    frame = read_csv(path, ["step", "loss"])
    ys = [y for y in ("loss", "validation") if y in frame and frame[y].notna().any()]
    return frame[["step", *ys]], ys


def read_zoo_losses(folder: Path, evaluations: Sequence[Scored], last: int) -> dict[str, np.ndarray]:
    """Loss [N] float64 of the last N = `last` checkpoints of every task with doses, from `folder/<task>.csv`."""
    frames = {e.name: read_csv(folder / f"{e.name}.csv", ["checkpoint", "loss"]) for e in evaluations if len(e.doses)}
    return {task: frame["loss"].to_numpy(dtype=np.float64)[-last:] for task, frame in frames.items()}


def arms_table(summary: Summary) -> pd.DataFrame:
    """task, arm, score, low, high: the selected candidate between the arm's lowest and highest, on validation."""
    rows = [(s.task, s.arm, s.selected, min(s.worst, s.best), max(s.worst, s.best)) for s in summary]
    return pd.DataFrame(rows, columns=["task", "arm", "score", "low", "high"]).round(4)


def write_plots(folder: Path, frames: dict[str, pd.DataFrame]) -> None:
    """`<name>.csv` for each frame."""
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
