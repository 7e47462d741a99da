"""The folder `data/normalized/`: what train-ae and encode-latents read, and how a generated w becomes theta again."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from condpdiff.common.files import read_tensors, write_tensors
from condpdiff.common.matrices import RowFile, Rows, row_writer
from condpdiff.zoo.layout import Layout, check_length
from condpdiff.zoo.normalization import Statistics, denormalise, normalise

W = "w.safetensors"
STATISTICS = "statistics.safetensors"
FEW = 16  # rows normalised at a time: what is computed stays in the processor's cache until it is written


@dataclass(frozen=True)
class Frame:
    """A task's way between w [S, K] of the chosen layers and a whole theta [S, K_all]."""

    statistics: Statistics
    soup: Tensor
    """[K_all]: mean of the task's checkpoints; stands where no weight is generated (Table 4c)."""
    positions: Tensor
    """[K] int64: where the chosen layers' weights lie in theta, in ascending order."""

    def to_w(self, theta: Tensor) -> Tensor:
        """theta [S, K_all] -> w [S, K]; `to_theta` is its inverse on the chosen layers."""
        chosen = theta if len(self.positions) == theta.shape[1] else theta[:, self.positions]
        return normalise(chosen, self.statistics)

    def to_theta(self, w: Tensor) -> Tensor:
        """w [S, K] -> theta [S, K_all]."""
        theta = self.soup.repeat(len(w), 1)
        theta[:, self.positions] = denormalise(w, self.statistics)
        return theta


def save_rows(folder: Path, theta: Rows, frame: Frame) -> None:
    """Write a task's `w.safetensors`, theta [N, K_all] by parts."""
    folder.mkdir(parents=True)
    with row_writer(folder / W, "w", (theta.shape[0], len(frame.positions))) as write:
        for part in theta.parts():
            for few in part.split(FEW):
                write(frame.to_w(few))


def save_frame(folder: Path, frame: Frame) -> None:
    """Write `statistics.safetensors`: the frame of a task, or of a family's members."""
    statistics = {"mean": frame.statistics.mean, "std": frame.statistics.std}
    write_tensors(folder / STATISTICS, {**statistics, "soup": frame.soup, "positions": frame.positions})


def load_rows(folder: Path, tasks: list[str]) -> dict[str, RowFile]:
    """w [N, K] of every task, to be read in parts.

    Raises:
        UserError: layout and weights disagree; a file can't be read.
    """
    layout = Layout.load(folder)
    found = {task: RowFile(folder / task / W, "w") for task in tasks}
    for rows in found.values():
        check_length(rows, layout, str(rows.path))
    return found


def load_frame(folder: Path, task: str) -> Frame:
    """A task's way back to theta; a member's is its family's."""
    t = read_tensors(folder / task.partition("/")[0] / STATISTICS)
    return Frame(Statistics(t["mean"], t["std"]), t["soup"], t["positions"].to(torch.int64))
