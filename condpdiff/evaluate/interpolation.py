"""Between two tasks: LoRAs on the way from one to the other, in weights and in conditions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from condpdiff.common.files import read_tensors
from condpdiff.diffusion.conditions import FILE, Encode, load_conditions
from condpdiff.diffusion.settings import Condition
from condpdiff.evaluate.scorer import Panel
from condpdiff.evaluate.settings import Interpolate
from condpdiff.generate.generator import Draw, Generator
from condpdiff.generate.settings import Sample
from condpdiff.zoo.normalized import Frame, load_frame

SCORES = ["kind", "lambda", "sample", "task", "score"]
"""Columns of a pair's scores."""


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

    def condition(self, y: tuple[Tensor, Tensor], lambdas: Sequence[float]) -> list[Point]:
        """LoRAs under what lies between two tasks' conditions, each [V, d_cond]."""
        return [Point("condition", at, self.draw(mixed(*y, at), at)) for at in lambdas]

    def unseen(self, y: Sequence[Mapping[str, Tensor]]) -> list[Point]:
        """LoRAs of the first and of the second task, for conditions [V, d_cond] that training never drew.

        Args:
            y: of either task, by what is new in them.
        """
        return [Point(k, float(end), self.draw(each, float(end))) for end, of in enumerate(y) for k, each in of.items()]


def pairs(
    data: Path,
    unseen: Mapping[str, Mapping[str, Sequence[Any]]],
    settings: Interpolate,
    sample: Sample,
    condition: Condition,
    load_encoder: Callable[[Condition], Encode],
) -> Iterator[tuple[tuple[str, str], list[Point]]]:
    """Every pair of neighbouring tasks that is looked at, with its points.

    Args:
        data: where the stages before wrote.
        unseen: of every task of the run the inputs that training never drew, by what is new in them.
        load_encoder: the domain's; asked where there are such inputs.

    Raises:
        UserError: a file can't be read.
    """
    generator = Generator.load(data)
    y = load_conditions(data / "conditions" / FILE, list(unseen))
    for number, pair in enumerate(settings.pairs_of(list(unseen))):
        one, other = (read_tensors(data / "samples" / f"{name}.safetensors")["theta"] for name in pair)
        points = weights(one[: settings.samples], other[: settings.samples], settings.lambdas)
        frames = (load_frame(data / "normalized", pair[0]), load_frame(data / "normalized", pair[1]))
        seed = settings.seed * 1000 + number
        between = Between(generator, frames, sample, settings.samples, seed, " to ".join(pair))
        if condition.kind != "learnable":  # there is nothing between two indices
            points += between.condition((y[pair[0]], y[pair[1]]), settings.lambdas)
        inputs = [unseen[name] for name in pair]
        if any(inputs):
            encode = load_encoder(condition)
            points += between.unseen([{what: encode(each) for what, each in of.items()} for of in inputs])
        yield pair, points


def score_points(points: Sequence[Point], panel: Panel, out: Path) -> pd.DataFrame:
    """Score every LoRA on both tasks; writes scores.csv, and what the panel keeps of each point's first LoRA, to `out`.

    Returns:
        kind, lambda, sample, task, score: of the first task all rows, then of the second.
    """
    rows = []
    for point in tqdm(points, desc="points", unit="point"):
        for sample, theta in enumerate(point.theta):
            rows += [(point.kind, point.at, sample, task, score) for task, score in panel.score(theta).items()]
            if sample == 0:
                panel.keep(point.kind, point.at)
    panel.write(out)
    found = pd.DataFrame(rows, columns=SCORES)
    scores = pd.concat([found[found["task"] == task] for task in found["task"].unique()])
    scores.to_csv(out / "scores.csv", index=False)
    return scores


def weights(one: Tensor, other: Tensor, lambdas: Sequence[float]) -> list[Point]:
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
