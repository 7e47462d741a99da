"""The condition y of each task: its description through a frozen encoder, a one-hot vector, or an index to learn.

The folder `data/conditions/`: y [V, d_cond] of every task, and what it was made of, in words.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from condpdiff.common.files import read_tensors
from condpdiff.common.matrices import principal_axes
from condpdiff.diffusion.settings import Condition

FILE, PROJECTION, SHOWN = "conditions.safetensors", "projection.safetensors", "shown.json"
REACH = 1.1  # longest projected condition, in mean lengths of those that are trained on
Encode = Callable[[Sequence[Any]], Tensor]


def conditions(
    settings: Condition, inputs: Mapping[str, Sequence[Any]], load_encoder: Callable[[Condition], Encode]
) -> dict[str, Tensor]:
    """y [V, d_cond] float32 of every task (Table 4b); of `learnable` conditions the task's index [1, 1].

    A task has as many conditions as inputs (descriptions times two-shot draws, or draws of style images), of which
    training draws one a row; the domain's encoder makes them, for kinds that have one.
    """
    if settings.kind == "one_hot":
        return dict(zip(inputs, torch.eye(len(inputs)).split(1), strict=True))
    if settings.kind == "learnable":
        return {name: torch.tensor([[float(q)]]) for q, name in enumerate(inputs)}
    encode = load_encoder(settings)
    return {name: encode(each) for name, each in tqdm(inputs.items(), desc="conditions", unit="task", mininterval=1)}


def unit_variance(vectors: Tensor) -> Tensor:
    """Give each row [V, d] the length sqrt(d): a standard deviation of 1 a coordinate."""
    return torch.nn.functional.normalize(vectors, dim=1) * vectors.shape[1] ** 0.5


@dataclass(frozen=True)
class Projection:
    """From an encoder's vectors [V, D] to y [V, d]: their principal axes over training conditions, of unit variance.

    Conditions of another kind than those lie many deviations off along axes that tell little of them. They are moved
    toward the mean, to REACH: a generator knows nothing of what lies beyond.
    """

    mean: Tensor  # [D], as std: an encoder's numbers have units of their own
    std: Tensor
    axes: Tensor  # [d, D], each divided by the deviation along it

    @staticmethod
    def fit(vectors: Tensor, count: int, weights: Tensor | float = 1.0) -> "Projection":
        """Of the vectors [V, D] of the tasks that are trained on; weights: [D], of their deviations."""
        mean, std = vectors.mean(0), vectors.std(0).clamp_min(1e-6) / weights
        standard = (vectors - mean) / std
        axes = principal_axes(standard, count)
        return Projection(mean, std, axes / (standard @ axes.T).std(0)[:, None])

    def __call__(self, vectors: Tensor) -> Tensor:
        y = (vectors - self.mean) / self.std @ self.axes.T
        return torch.renorm(y, 2, 0, REACH * y.shape[1] ** 0.5)


def projected(encode: Encode, settings: Condition, data: Path) -> Encode:
    """An encoder of vectors, and behind it the projection that encode-conditions left in `data/conditions/`, if any."""
    if settings.axes is None:
        return encode
    projection = Projection(**read_tensors(data / "conditions" / PROJECTION))
    return lambda inputs: projection(encode(inputs))


def load_conditions(path: Path, tasks: list[str]) -> dict[str, Tensor]:
    """y [V, d_cond] of every task of the file, in the run's order."""
    tensors = read_tensors(path)
    return {task: tensors[task] for task in tasks}
