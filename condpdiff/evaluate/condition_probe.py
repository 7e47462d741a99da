"""What the condition does: LoRAs under other conditions than a task's own, and for tasks left out of training."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.delta_w import update_loss
from condpdiff.autoencoder.latents import Scale
from condpdiff.autoencoder.settings import Autoencoder
from condpdiff.autoencoder.train import train
from condpdiff.common.hardware import device
from condpdiff.common.matrices import Joined, Rows, Standardised
from condpdiff.diffusion import conditions as condition_file
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.conditions import Encode, load_conditions
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.settings import Condition, Ldm
from condpdiff.evaluate.scorer import Panel
from condpdiff.evaluate.settings import DROPPED, NONSENSE, Probe
from condpdiff.generate.generator import Draw, Generator
from condpdiff.generate.settings import Sample
from condpdiff.zoo.layout import Layout
from condpdiff.zoo.normalization import Moments, Statistics, denormalise
from condpdiff.zoo.normalized import Frame, load_frame, load_rows
from condpdiff.zoo.performance import load_performance
from condpdiff.zoo.settings import SHARED

SWAP = ["condition", "statistics", "task", "sample", "score"]
UNSEEN = ["task", "arm", "statistics", "sample", "score"]
TEMPERATURE = 0.1
"""Of the softmax over cosine similarities: a task nearer by 0.1 weighs e times as much."""

Score = Callable[[Tensor | None], float]
"""theta [K_all], or None for no LoRA -> a task's score."""
SwapRow = tuple[str, str, str, int, float]
UnseenRow = tuple[str, str, str, int, float]


@dataclass(frozen=True)
class Known:
    """What the stages before left of every task of the run."""

    w: Mapping[str, Rows]
    """Normalised checkpoints [N, K]."""
    layout: Layout
    """Of w."""
    frames: Mapping[str, Frame]
    y: Mapping[str, Tensor]
    """Conditions [V, d_cond]."""
    p: Mapping[str, np.ndarray] | None
    """Performance [N] of each task's checkpoints; None for `ldm.performance: none`."""

    @staticmethod
    def load(data: Path, tasks: list[str], performance: str) -> "Known":
        """Read it from the folders in `data`.

        Raises:
            UserError: a file can't be read, or two disagree.
        """
        w = load_rows(data / "normalized", tasks)
        p = load_performance(data / "performance", {task: rows.shape[0] for task, rows in w.items()}, performance)
        frames = {task: load_frame(data / "normalized", task) for task in tasks}
        y = load_conditions(data / "conditions" / condition_file.FILE, tasks)
        return Known(w, Layout.load(data / "normalized"), frames, y, p)

    def without(self, task: str, method: str) -> "Known":
        """The other tasks alone, as if the run had never had this one.

        Statistics that all tasks share (`normalize.method: batch`) came from its checkpoints too: they are taken again
        from the others'.
        """
        names = [name for name in self.w if name != task]
        w = {name: self.w[name] for name in names}
        frames = {name: self.frames[name] for name in names}
        if method == "batch":
            moments = reduce(Moments.merge, (Moments.of(rows.parts()) for rows in w.values()))
            inner, outer = moments.statistics(), frames[names[0]].statistics
            w = {name: Standardised(rows, inner.mean, inner.std) for name, rows in w.items()}
            shared = Statistics(denormalise(inner.mean, outer), inner.std * outer.std)
            frames = {name: replace(frame, statistics=shared) for name, frame in frames.items()}
        p = None if self.p is None else {name: self.p[name] for name in names}
        return Known(w, self.layout, frames, {name: self.y[name] for name in names}, p)


def conditioned(
    data: Path, y: Mapping[str, Tensor], nonsense: Tensor | None, ldm: Ldm, draw: Draw
) -> dict[str, Tensor]:
    """w [count, K] of the run's generator under each task's condition, under nonsense, and under none.

    Args:
        data: where the stages wrote.
        nonsense: [V, d_cond]; None for kinds of condition that have no such thing.
    """
    generator = Generator.load(data)
    found = {task: draw(generator, each, task) for task, each in y.items()}
    if nonsense is not None:
        found[NONSENSE] = draw(generator, nonsense, NONSENSE)
    if ldm.condition_dropout:  # else the null condition was never trained
        unconditional = replace(generator, model=without_condition(generator.model))
        found[DROPPED] = draw(unconditional, next(iter(y.values())), DROPPED)
    return found


def without_condition(model: Denoiser) -> Denoiser:
    """A copy whose tau gives its null condition for every y; time and performance still enter."""
    found = copy.deepcopy(model)
    last = found.tau.project[-1]
    with torch.no_grad():
        last.weight.zero_()  # type: ignore[operator]  # a Linear, which mypy does not know
        last.bias.copy_(found.tau.null)  # type: ignore[operator]
    return found


def swap_rows(
    w: Mapping[str, Tensor], frames: Mapping[str, Frame], method: str, task: str, score: Score
) -> list[SwapRow]:
    """Rows of `SWAP`, all scored on one task: every condition under the task's statistics, and every other task's
    statistics under the task's own condition.

    Args:
        w: generated [count, K] under each condition.
        method: `normalize.method`; where all tasks share their statistics, there are no other ones.
    """
    cells = [(condition, task) for condition in w]
    cells += [] if method in SHARED else [(task, other) for other in frames if other != task]
    return [
        (condition, statistics, task, sample, score(theta))
        for condition, statistics in tqdm(cells, desc=f"scores on {task}", unit="cell")
        for sample, theta in enumerate(frames[statistics].to_theta(w[condition]))
    ]


def train_generator(known: Known, ae: Autoencoder, ldm: Ldm) -> Generator:
    """A generator of the tasks that are known alone, trained as the run's is."""
    statistics = [frame.statistics for frame in known.frames.values()]
    updates = update_loss(known.layout, statistics, [rows.shape[0] for rows in known.w.values()], ae.delta_w)
    decoder, _, _ = train(Joined(list(known.w.values())), ae, known.layout, updates)
    z = {name: autoencoder.encode_all(decoder, rows) for name, rows in known.w.items()}
    scale = Scale.of(torch.cat(list(z.values())))
    scaled = {name: scale.apply(rows) for name, rows in z.items()}
    p = None if known.p is None else dict(known.p)
    model, _ = diffusion.train(scaled, dict(known.y), p, ldm, learnable=False)
    model.to(device())
    return Generator(model, diffusion.Process(ldm.prediction, ldm.schedule), decoder, scale)


def guesses(known: Known, y: Tensor) -> dict[str, Frame]:
    """Two guesses of the frame of a task never seen, from the frames of those that are known.

    `mean`: their mean. `similar`: kernel regression on the condition, their mean weighted by the softmax of the cosine
    similarity of mean conditions over `TEMPERATURE`. What is averaged is mean, std and soup, coordinate by coordinate.

    Args:
        y: conditions [V, d_cond] of the task never seen.
    """
    means = torch.stack([each.mean(0) for each in known.y.values()]).double()  # [Q - 1, d_cond]
    near = cosine_similarity(means, y.double().mean(0)[None])  # [Q - 1]
    weights = {"mean": torch.full_like(near, 1 / len(near)), "similar": torch.softmax(near / TEMPERATURE, 0)}
    return {guess: _weighted(list(known.frames.values()), each) for guess, each in weights.items()}


def _weighted(frames: list[Frame], weights: Tensor) -> Frame:
    """Weights [n] that sum to 1."""

    def mean(rows: list[Tensor]) -> Tensor:
        return sum(w * row.double() for w, row in zip(weights.tolist(), rows, strict=True)).float()

    statistics = Statistics(mean([f.statistics.mean for f in frames]), mean([f.statistics.std for f in frames]))
    return Frame(statistics, mean([f.soup for f in frames]), frames[0].positions)


def unseen_rows(
    w: Tensor, soup: Tensor, guessed: Mapping[str, Frame], method: str, task: str, score: Score
) -> list[UnseenRow]:
    """Rows of `UNSEEN`: LoRAs generated for a task never seen, and what needs no generator.

    Args:
        w: generated [count, K], by a generator of the other tasks.
        soup: the task's own [K_all], as a yardstick.
        guessed: by `guesses`; where the other tasks share their statistics, so do the guesses.
        method: `normalize.method`.
    """
    frames = {"shared": guessed["mean"]} if method in SHARED else guessed
    arms: list[tuple[str, str, Sequence[Tensor | None]]] = [("no_lora", "", [None]), ("soup", "own", [soup])]
    arms += [("soup_of_others", guess, [frame.soup]) for guess, frame in guessed.items()]
    arms += [("condpdiff", guess, list(frame.to_theta(w))) for guess, frame in frames.items()]
    return [
        (task, arm, statistics, sample, score(theta))
        for arm, statistics, vectors in tqdm(arms, desc=f"scores on {task}, left out", unit="arm")
        for sample, theta in enumerate(vectors)
    ]


@dataclass(frozen=True)
class Probing:
    """What the stage probe does: the sections of params.yaml that it reads, and what the domain does for it."""

    settings: Probe
    method: str
    """`normalize.method`"""
    ae: Autoencoder
    condition: Condition
    ldm: Ldm
    sample: Sample
    load_encoder: Callable[[Condition], Encode]
    load_panel: Callable[[str], Panel]
    """Of one task."""

    def write(self, data: Path, tasks: list[str], nonsense: Sequence[Any], out: Path) -> None:
        """Write swap.csv (`SWAP`) and unseen.csv (`UNSEEN`) to the folder `out`; no row where `probe.samples` is 0.

        Args:
            data: where the stages before wrote.
            nonsense: what conditions that mean nothing are encoded from; none for kinds that have no such thing.

        Raises:
            UserError: a file can't be read, or two disagree.
        """
        swap: list[SwapRow] = []
        unseen: list[UnseenRow] = []
        if self.settings.samples:
            known = Known.load(data, tasks, self.ldm.performance)
            draw = Draw(self.sample, self.settings.samples, self.settings.seed)
            encoded = self.load_encoder(self.condition)(nonsense) if nonsense else None
            w = conditioned(data, known.y, encoded, self.ldm, draw)
            for name in tasks:
                score = _score_on(name, self.load_panel(name))
                swap += swap_rows(w, known.frames, self.method, name, score)
                if name in self.settings.left_out(tasks, self.condition.kind):
                    unseen += self._left_out(name, known, draw, score)
        pd.DataFrame(swap, columns=SWAP).to_csv(out / "swap.csv", index=False)
        pd.DataFrame(unseen, columns=UNSEEN).to_csv(out / "unseen.csv", index=False)

    def _left_out(self, name: str, known: Known, draw: Draw, score: Score) -> list[UnseenRow]:
        others, y = known.without(name, self.method), known.y[name]
        ldm = self.ldm.model_copy(update={"steps": self.settings.ldm_steps})
        made = draw(train_generator(others, self.ae, ldm), y, f"unseen {name}")
        return unseen_rows(made, known.frames[name].soup, guesses(others, y), self.method, name, score)


def _score_on(task: str, panel: Panel) -> Score:
    return lambda theta: panel.score(theta)[task]
