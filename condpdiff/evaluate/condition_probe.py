"""What the condition does: LoRAs under other conditions than a task's own, and for tasks left out of training."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.delta_w import UpdateLoss
from condpdiff.autoencoder.latents import Scale
from condpdiff.autoencoder.settings import Autoencoder
from condpdiff.autoencoder.train import train
from condpdiff.common.hardware import device
from condpdiff.common.matrices import Joined, Rows
from condpdiff.diffusion import conditions as condition_file
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.conditions import load_conditions
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.settings import Ldm
from condpdiff.evaluate.interpolation import Score
from condpdiff.evaluate.settings import DROPPED, NONSENSE
from condpdiff.generate.generator import Draw, Generator
from condpdiff.zoo.layout import Layout
from condpdiff.zoo.normalization import Statistics
from condpdiff.zoo.normalized import Frame, load_frame, load_rows
from condpdiff.zoo.performance import load_performance
from condpdiff.zoo.settings import SHARED

SWAP = ["condition", "statistics", "task", "sample", "score"]
UNSEEN = ["task", "arm", "statistics", "sample", "score"]
TEMPERATURE = 0.1
"""Of the softmax over cosine similarities: a task nearer by 0.1 weighs e times as much."""

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


def train_without(task: str, known: Known, ae: Autoencoder, ldm: Ldm, steps: int) -> Generator:
    """A generator that never saw one of the tasks, trained as the run's but for the denoiser's `steps`."""
    w = {name: rows for name, rows in known.w.items() if name != task}
    updates = None
    if ae.delta_w:
        statistics = [known.frames[name].statistics for name in w]
        updates = UpdateLoss(known.layout, statistics, [rows.shape[0] for rows in w.values()], ae.delta_w)
    decoder, _, _ = train(Joined(list(w.values())), ae, known.layout, updates)
    z = {name: autoencoder.encode_all(decoder, rows) for name, rows in w.items()}
    scale = Scale.of(torch.cat(list(z.values())))
    model, _ = diffusion.train(
        {name: scale.apply(rows) for name, rows in z.items()},
        {name: known.y[name] for name in w},
        None if known.p is None else {name: known.p[name] for name in w},
        ldm.model_copy(update={"steps": steps}),
        learnable=False,
    )
    model.to(device())  # type: ignore[arg-type]
    return Generator(model, diffusion.Process(ldm.prediction, ldm.schedule), decoder, scale)


def guesses(known: Known, task: str) -> dict[str, Frame]:
    """Two guesses of the frame of a task never seen, from the other tasks' frames.

    `mean`: their mean. `similar`: kernel regression on the condition, their mean weighted by the softmax of the cosine
    similarity of mean conditions over `TEMPERATURE`. What is averaged is mean, std and soup, coordinate by coordinate.
    """
    frames = {name: frame for name, frame in known.frames.items() if name != task}
    here = known.y[task].mean(0)
    near = torch.stack([cosine_similarity(known.y[name].mean(0), here, dim=0) for name in frames])  # [Q - 1]
    weights = {"mean": torch.full_like(near, 1 / len(near)), "similar": torch.softmax(near / TEMPERATURE, 0)}
    return {guess: _weighted(list(frames.values()), each) for guess, each in weights.items()}


def _weighted(frames: list[Frame], weights: Tensor) -> Frame:
    """Weights [n] that sum to 1."""

    def mean(rows: list[Tensor]) -> Tensor:
        return sum(w * row.double() for w, row in zip(weights.tolist(), rows, strict=True)).float()

    statistics = Statistics(mean([f.statistics.mean for f in frames]), mean([f.statistics.std for f in frames]))
    return Frame(statistics, mean([f.soup for f in frames]), frames[0].positions)


def unseen_rows(
    w: Tensor, own: Frame, guessed: Mapping[str, Frame], method: str, task: str, score: Score
) -> list[UnseenRow]:
    """Rows of `UNSEEN`: LoRAs generated for a task never seen, and what needs no generator.

    Args:
        w: generated [count, K], by a generator of the other tasks.
        own: the task's own; of it the soup alone is used, as a yardstick, and statistics that all tasks share.
        guessed: by `guesses`.
        method: `normalize.method`.
    """
    frames = guessed
    if method in SHARED:
        frames = {"shared": Frame(own.statistics, guessed["mean"].soup, own.positions)}
    arms: list[tuple[str, str, Sequence[Tensor | None]]] = [("no_lora", "", [None]), ("soup", "own", [own.soup])]
    arms += [("soup_of_others", guess, [frame.soup]) for guess, frame in guessed.items()]
    arms += [("condpdiff", guess, list(frame.to_theta(w))) for guess, frame in frames.items()]
    return [
        (task, arm, statistics, sample, score(theta))
        for arm, statistics, vectors in tqdm(arms, desc=f"scores on {task}, left out", unit="arm")
        for sample, theta in enumerate(vectors)
    ]
