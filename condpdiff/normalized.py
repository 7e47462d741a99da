"""The folder `data/normalized/`: what train-ae and encode-latents read, and how a generated w becomes theta again."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from condpdiff.files import read_tensors, write_tensors
from condpdiff.layout import Layout, check_length
from condpdiff.normalization import Statistics, denormalise

W = "w.safetensors"
STATISTICS = "statistics.safetensors"


@dataclass(frozen=True)
class Frame:
    """A task's way back from w [S, K] of the chosen layers to a whole theta [S, K_all]."""

    statistics: Statistics
    soup: Tensor
    """[K_all]: mean of the task's checkpoints; stands where no weight is generated (Table 4c)."""
    positions: Tensor
    """[K] int64: where the chosen layers' weights lie in theta."""

    def to_theta(self, w: Tensor) -> Tensor:
        """w [S, K] -> theta [S, K_all]."""
        theta = self.soup.repeat(len(w), 1)
        theta[:, self.positions] = denormalise(w, self.statistics)
        return theta


def save_task(folder: Path, w: Tensor, frame: Frame) -> None:
    """Write a task's `w.safetensors` and `statistics.safetensors`."""
    folder.mkdir(parents=True)
    write_tensors(folder / W, {"w": w})
    statistics = {"mean": frame.statistics.mean, "std": frame.statistics.std}
    write_tensors(folder / STATISTICS, {**statistics, "soup": frame.soup, "positions": frame.positions})


def load_w(folder: Path, tasks: list[str]) -> dict[str, Tensor]:
    """w [N, K] of every task.

    Raises:
        UserError: layout and weights disagree; a file can't be read.
    """
    layout = Layout.load(folder)
    found = {task: read_tensors(folder / task / W)["w"] for task in tasks}
    for task, w in found.items():
        check_length(w, layout, str(folder / task / W))
    return found


def load_frame(folder: Path, task: str) -> Frame:
    """A task's way back to theta."""
    t = read_tensors(folder / task / STATISTICS)
    return Frame(Statistics(t["mean"], t["std"]), t["soup"], t["positions"].to(torch.int64))
