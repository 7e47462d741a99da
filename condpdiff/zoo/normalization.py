"""Task normalisation (Table 4a): theta [N, K] <-> w [N, K], one pair of functions for all methods.

A method is only a choice of statistics; normalising and denormalising are the same for all:
w = (theta - mean) / std and theta = w * std + mean, coordinate by coordinate. All statistics come from one pass over
the checkpoints in parts, so a zoo may be larger than memory.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from condpdiff.zoo.layout import Layout

# Below this a coordinate does not vary: N = 1, or a weight that was never updated. Its std becomes EPS, so that
# its w is 0 and whatever is decoded for it comes back within EPS of the mean.
EPS = 1e-8
SLICE = 2**20  # numbers of a part that are in float64 at a time


@dataclass(frozen=True)
class Statistics:
    """What denormalising needs: mean and std, [K] float32 each."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Moments:
    """What is known of `count` values of each coordinate: two-pass sums in float64, since float32 sums, and sums of
    squares, lose a small std beside a large mean."""

    count: int
    mean: Tensor
    """[K] float64."""
    m2: Tensor
    """[K] float64: sum of the squared deviations from the mean."""

    @staticmethod
    def of(parts: Iterable[Tensor]) -> "Moments":
        """Moments over the rows of all parts [n, K], each looked at once."""
        return reduce(Moments.merge, map(_moments, parts))

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


def normalise(theta: Tensor, statistics: Statistics) -> Tensor:
    """theta [N, K] -> w [N, K]; `denormalise` is its inverse."""
    return (theta - statistics.mean).div_(statistics.std)


def denormalise(w: Tensor, statistics: Statistics) -> Tensor:
    """w [N, K] -> theta [N, K]; `normalise` is its inverse."""
    return w * statistics.std + statistics.mean


def _task(zoos: dict[str, Moments], layout: Layout) -> dict[str, Statistics]:
    """Per coordinate over a task's own checkpoints: decoding zeros gives the soup."""
    return {task: moments.statistics() for task, moments in zoos.items()}


def _task_tensor(zoos: dict[str, Moments], layout: Layout) -> dict[str, Statistics]:
    """One mean and std for each LoRA tensor of a task."""
    found = {}
    for task, moments in zoos.items():
        mean, std = torch.empty(layout.K), torch.empty(layout.K)
        for entry in layout.entries:
            tensor = moments.at(entry.slice).pooled().statistics()
            mean[entry.slice], std[entry.slice] = tensor.mean, tensor.std
        found[task] = Statistics(mean, std)
    return found


def _task_scalar(zoos: dict[str, Moments], layout: Layout) -> dict[str, Statistics]:
    """One mean and std for a task's whole vector."""
    scalars = {task: moments.pooled().statistics() for task, moments in zoos.items()}
    return {task: Statistics(s.mean.expand(layout.K), s.std.expand(layout.K)) for task, s in scalars.items()}


def _batch(zoos: dict[str, Moments], layout: Layout) -> dict[str, Statistics]:
    """Per coordinate over the checkpoints of all tasks together."""
    return dict.fromkeys(zoos, reduce(Moments.merge, zoos.values()).statistics())


def _shared(zoos: dict[str, Moments], layout: Layout) -> dict[str, Statistics]:
    """Per coordinate the mean over the tasks' means, and the spread within a task (root of the mean variance).

    One frame for all tasks: w says which task it is by where it lies, and a checkpoint's own spread is the unit, beside
    which an error that is small against the distance between tasks is large.
    """
    centres = reduce(Moments.merge, (Moments(1, m.mean, torch.zeros_like(m.m2)) for m in zoos.values()))
    within = reduce(Moments.merge, (Moments(m.count, torch.zeros_like(m.mean), m.m2) for m in zoos.values()))
    return dict.fromkeys(zoos, Statistics(centres.statistics().mean, within.statistics().std))


def _none(zoos: dict[str, Moments], layout: Layout) -> dict[str, Statistics]:
    """w = theta."""
    return dict.fromkeys(zoos, Statistics(torch.zeros(layout.K), torch.ones(layout.K)))


METHODS: dict[str, Callable[[dict[str, Moments], Layout], dict[str, Statistics]]] = {
    "task": _task,
    "task_tensor": _task_tensor,
    "task_scalar": _task_scalar,
    "batch": _batch,
    "shared": _shared,
    "none": _none,
}


def statistics_of(method: str, zoos: dict[str, Moments], layout: Layout) -> dict[str, Statistics]:
    """Statistics of every task by one of the methods, from the moments of its theta [N, K]."""
    return METHODS[method](zoos, layout)


def _moments(part: Tensor) -> Moments:
    """Moments over the rows of one part [n, K], in two passes over a slice of coordinates at a time."""
    mean, m2 = (torch.empty(part.shape[1], dtype=torch.float64) for _ in range(2))
    step = max(1, SLICE // len(part))
    for start in range(0, part.shape[1], step):
        columns = slice(start, start + step)
        values = part[:, columns].to(torch.float64, copy=True)
        mean[columns] = values.mean(0)
        m2[columns] = values.sub_(mean[columns]).square_().sum(0)
    return Moments(len(part), mean, m2)
