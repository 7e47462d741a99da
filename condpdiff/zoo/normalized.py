"""Task normalisation (Table 4a), theta [N, K] <-> w [N, K], and the folder `data/normalized/`.

A method is only a choice of statistics; normalising and denormalising are the same for all, coordinate by coordinate:
w = (theta - mean) / std and theta = w * std + mean. All statistics come from one pass over the checkpoints in parts, so
a zoo may be larger than memory.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_tensors, write_tensors
from condpdiff.common.matrices import RowFile, Rows, row_writer
from condpdiff.zoo.checkpoints import Layout, check_length

W = "w.safetensors"
STATISTICS = "statistics.safetensors"
FEW = 16  # rows normalised at a time: what is computed stays in the processor's cache until it is written
SLICE = 2**20  # numbers of a part that are in float64 at a time
# Below this a coordinate does not vary: N = 1, or a weight that was never updated. Its std becomes EPS, so that
# its w is 0 and whatever is decoded for it comes back within EPS of the mean.
EPS = 1e-8


@dataclass(frozen=True)
class Statistics:
    """What denormalising needs: mean and std, [K] float32 each."""

    mean: Tensor
    std: Tensor


def normalise(theta: Tensor, statistics: Statistics) -> Tensor:
    """theta [N, K] -> w [N, K]; `denormalise` is its inverse."""
    return (theta - statistics.mean).div_(statistics.std)


def denormalise(w: Tensor, statistics: Statistics) -> Tensor:
    """w [N, K] -> theta [N, K]; `normalise` is its inverse."""
    return w * statistics.std + statistics.mean


@dataclass(frozen=True)
class Moments:
    """What is known of `count` values of each coordinate: two-pass sums in float64, since float32 sums, and sums of
    squares, lose a small std beside a large mean."""

    count: int
    mean: Tensor  # [K] float64
    m2: Tensor  # [K] float64: sum of the squared deviations from the mean

    @staticmethod
    def of(parts: Iterable[Tensor]) -> "Moments":
        """Moments over the rows of all parts [n, K], each looked at once."""
        return reduce(Moments.merge, map(Moments._of_part, parts))

    @staticmethod
    def _of_part(part: Tensor) -> "Moments":
        """In two passes over a slice of coordinates at a time."""
        mean, m2 = (torch.empty(part.shape[1], dtype=torch.float64) for _ in range(2))
        step = max(1, SLICE // len(part))
        for start in range(0, part.shape[1], step):
            columns = slice(start, start + step)
            values = part[:, columns].to(torch.float64, copy=True)
            mean[columns] = values.mean(0)
            m2[columns] = values.sub_(mean[columns]).square_().sum(0)
        return Moments(len(part), mean, m2)

    def merge(self, other: "Moments") -> "Moments":
        """Moments over the values of both (Chan, Golub and LeVeque's update)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        m2 = self.m2 + other.m2 + apart.square() * (self.count * other.count / count)
        return Moments(count, mean, m2)

    def at(self, positions: Tensor | slice) -> "Moments":
        """Moments of some of the coordinates."""
        return Moments(self.count, self.mean[positions], self.m2[positions])

    def pooled(self) -> "Moments":
        """Moments over the values of all coordinates together: K = 1."""
        mean = self.mean.mean(0, keepdim=True)
        m2 = self.m2.sum(0, keepdim=True) + self.count * (self.mean - mean).square().sum(0, keepdim=True)
        return Moments(self.count * len(self.mean), mean, m2)

    def statistics(self) -> Statistics:
        """Mean and std, the latter at least `EPS`."""
        return Statistics(self.mean.float(), (self.m2 / self.count).sqrt().float().clamp_min(EPS))


def moments_of(zoos: Mapping[str, RowFile]) -> dict[str, Moments]:
    """Of every task's theta [N, K]. Raises UserError: a zoo holds values that are no numbers."""
    found = {task: Moments.of(theta.parts()) for task, theta in zoos.items()}
    for task, own in found.items():
        if not own.mean.isfinite().all():
            raise UserError(f"{zoos[task].path}: {task} holds values that are no numbers; lower its finetune.lr")
    return found


def statistics_of(method: str, zoos: dict[str, Moments], layout: Layout) -> dict[str, Statistics]:
    """Statistics of every task by `normalize.method`, from the moments of its theta [N, K]."""
    if method == "task":  # per coordinate over a task's own checkpoints: decoding zeros gives the soup
        return {task: own.statistics() for task, own in zoos.items()}
    if method in ("task_tensor", "task_scalar"):  # one mean and std for each LoRA tensor of a task, or for all of them
        parts = [e.slice for e in layout.entries] if method == "task_tensor" else [slice(0, layout.K)]
        return {task: _constant_over(parts, own) for task, own in zoos.items()}
    # Per coordinate the mean over the tasks' means, and the root of the mean variance in a task: w says which task it
    # is by where it lies, in units of a checkpoint's own spread.
    if method == "shared":
        centres = reduce(Moments.merge, (Moments(1, m.mean, torch.zeros_like(m.m2)) for m in zoos.values()))
        within = reduce(Moments.merge, (Moments(m.count, torch.zeros_like(m.mean), m.m2) for m in zoos.values()))
        one = Statistics(centres.statistics().mean, within.statistics().std)
    elif method == "batch":  # per coordinate over the checkpoints of all tasks together
        one = reduce(Moments.merge, zoos.values()).statistics()
    else:  # none: w = theta
        one = Statistics(torch.zeros(layout.K), torch.ones(layout.K))
    return dict.fromkeys(zoos, one)


def _constant_over(parts: list[slice], own: Moments) -> Statistics:
    """[K] each, of one value in a part, from the moments over all of the part's values."""
    mean, std = torch.empty(len(own.mean)), torch.empty(len(own.mean))
    for part in parts:
        found = own.at(part).pooled().statistics()
        mean[part], std[part] = found.mean, found.std
    return Statistics(mean, std)


@dataclass(frozen=True)
class Frame:
    """A task's way between w [S, K] of the chosen layers and a whole theta [S, K_all]."""

    statistics: Statistics
    soup: Tensor  # [K_all]: mean of the task's checkpoints; stands where no weight is generated (Table 4c)
    positions: Tensor  # [K] int64: where the chosen layers' weights lie in theta, in ascending order

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


def load_rows(folder: Path, tasks: list[str]) -> dict[str, RowFile]:
    """w [N, K] of every task, to be read in parts; a UserError where layout and weights disagree."""
    layout = Layout.load(folder)
    found = {task: RowFile(folder / task / W, "w") for task in tasks}
    for rows in found.values():
        check_length(rows, layout, str(rows.path))
    return found


def save_frame(folder: Path, frame: Frame) -> None:
    """Write `statistics.safetensors`: the frame of a task, or of a family's members."""
    statistics = {"mean": frame.statistics.mean, "std": frame.statistics.std}
    write_tensors(folder / STATISTICS, {**statistics, "soup": frame.soup, "positions": frame.positions})


def load_frame(folder: Path, task: str) -> Frame:
    """The frame of a task; a member's is its family's."""
    t = read_tensors(folder / task.partition("/")[0] / STATISTICS)
    return Frame(Statistics(t["mean"], t["std"]), t["soup"], t["positions"].to(torch.int64))
