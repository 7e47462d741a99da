"""Between two tasks: LoRAs on the way from one to the other, in weights and in conditions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from condpdiff.generate.generator import Draw, Generator
from condpdiff.generate.settings import Sample
from condpdiff.zoo.normalized import Frame

SCORES = ["kind", "lambda", "sample", "task", "score"]
"""Columns of a pair's scores."""
Score = Callable[[Tensor | None], float]
"""theta [K_all], or None for no LoRA -> a task's first metric on all its validation rows, with its own head."""


@dataclass(frozen=True)
class Point:
    """LoRAs of one place between two tasks."""

    kind: str
    """weights | condition | unseen_<what is new in the condition>"""
    at: float
    """lambda: 0 is the first task, 1 the second."""
    theta: Tensor
    """[count, K_all]"""


@dataclass(frozen=True)
class Scoring:
    """How LoRAs between tasks are scored: the keys of section `eval` that say what a score costs."""

    batch_tokens: int
    images: int
    image_steps: int
    image_guidance: float


@dataclass(frozen=True)
class Between:
    """Draws LoRAs for two tasks; whatever it is asked for, from the same noise."""

    generator: Generator
    frames: tuple[Frame, Frame]
    settings: Sample
    count: int
    seed: int
    what: str

    def draw(self, y: Tensor, at: float) -> Tensor:
        """`count` LoRAs [count, K_all] for the conditions y [V, d_cond], of which each sample draws one."""
        w = Draw(self.settings, self.count, self.seed)(self.generator, y, self.what)
        # Task normalisation has a mean and a std of the run's tasks alone, and no condition tells those of a task
        # between two: they are interpolated as the condition is, which is what decoding with both and mixing comes to.
        return torch.lerp(self.frames[0].to_theta(w), self.frames[1].to_theta(w), at)

    def condition(self, y: tuple[Tensor, Tensor], lambdas: list[float]) -> list[Point]:
        """LoRAs under what lies between two tasks' conditions, each [V, d_cond]."""
        return [Point("condition", at, self.draw(mixed(*y, at), at)) for at in lambdas]

    def unseen(self, kind: str, y: Tensor, task: int) -> Point:
        """LoRAs of the first (0) or the second (1) task, for conditions y [V, d_cond] that training never drew."""
        return Point(kind, float(task), self.draw(y, float(task)))


def weights(one: Tensor, other: Tensor, lambdas: list[float]) -> list[Point]:
    """theta = (1 - lambda) one + lambda other of LoRAs of two tasks, [count, K_all] each."""
    return [Point("weights", at, torch.lerp(one, other, at)) for at in lambdas]


def mixed(one: Tensor, other: Tensor, at: float) -> Tensor:
    """y = (1 - lambda) y_1 + lambda y_2 of two tasks' conditions, at the length that they have themselves.

    That length is sqrt(d_cond) for encoders and 1 for one-hot vectors; the plain mean would be shorter than anything
    that the denoiser was trained on.

    Args:
        one: [V_1, d_cond]; the shorter list is gone through again and again.
        other: [V_2, d_cond]

    Returns:
        [max(V_1, V_2), d_cond]
    """
    rows = torch.arange(max(len(one), len(other)))
    one, other = one[rows % len(one)], other[rows % len(other)]
    length = torch.lerp(one.norm(dim=1, keepdim=True), other.norm(dim=1, keepdim=True), at)
    return torch.nn.functional.normalize(torch.lerp(one, other, at), dim=1) * length
