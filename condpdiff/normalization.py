"""Task normalisation (Table 4a): theta [N, K] <-> w [N, K], one pair of functions for all methods.

A method is only a choice of statistics; normalising and denormalising are the same for all:
w = (theta - mean) / std and theta = w * std + mean, coordinate by coordinate.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from condpdiff.layout import Layout

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
    return (theta - statistics.mean) / statistics.std


def denormalise(w: Tensor, statistics: Statistics) -> Tensor:
    """w [N, K] -> theta [N, K]; `normalise` is its inverse."""
    return w * statistics.std + statistics.mean


def _task(zoos: dict[str, Tensor], layout: Layout) -> dict[str, Statistics]:
    """Per coordinate over a task's own checkpoints: decoding zeros gives the soup."""
    return {task: _per_coordinate(theta) for task, theta in zoos.items()}


def _task_tensor(zoos: dict[str, Tensor], layout: Layout) -> dict[str, Statistics]:
    """One mean and std for each LoRA tensor of a task."""
    found = {}
    for task, theta in zoos.items():
        mean, std = torch.empty(layout.K), torch.empty(layout.K)
        for entry in layout.entries:
            mean[entry.slice], std[entry.slice] = _whole(theta[:, entry.slice])
        found[task] = Statistics(mean, std)
    return found


def _task_scalar(zoos: dict[str, Tensor], layout: Layout) -> dict[str, Statistics]:
    """One mean and std for a task's whole vector."""
    found = {}
    for task, theta in zoos.items():
        mean, std = _whole(theta)
        found[task] = Statistics(mean.expand(layout.K), std.expand(layout.K))
    return found


def _batch(zoos: dict[str, Tensor], layout: Layout) -> dict[str, Statistics]:
    """Per coordinate over the checkpoints of all tasks together."""
    together = _per_coordinate(torch.cat(list(zoos.values())))
    return dict.fromkeys(zoos, together)


def _none(zoos: dict[str, Tensor], layout: Layout) -> dict[str, Statistics]:
    """w = theta."""
    return dict.fromkeys(zoos, Statistics(torch.zeros(layout.K), torch.ones(layout.K)))


METHODS: dict[str, Callable[[dict[str, Tensor], Layout], dict[str, Statistics]]] = {
    "task": _task,
    "task_tensor": _task_tensor,
    "task_scalar": _task_scalar,
    "batch": _batch,
    "none": _none,
}


def statistics_of(method: str, zoos: dict[str, Tensor], layout: Layout) -> dict[str, Statistics]:
    """Statistics of every task's theta [N, K] by one of the five methods."""
    return METHODS[method](zoos, layout)


def _per_coordinate(theta: Tensor) -> Statistics:
    """Two passes in float64, a slice of coordinates at a time: float32 sums lose a small std beside a large mean."""
    mean, std = torch.empty(theta.shape[1]), torch.empty(theta.shape[1])
    for columns in torch.arange(theta.shape[1]).split(65536):
        part = theta[:, columns].double()
        mean[columns] = part.mean(0).float()
        std[columns] = part.std(0, correction=0).float()
    return Statistics(mean, std.clamp_min(EPS))


def _whole(theta: Tensor) -> tuple[Tensor, Tensor]:
    part = theta.double()
    return part.mean().float(), part.std(correction=0).float().clamp_min(EPS)
