"""What the condition does: LoRAs under other conditions than a task's own, and with other tasks' statistics."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from condpdiff.diffusion.conditions import FILE, Encode, load_conditions, projected
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.settings import Condition
from condpdiff.evaluate.settings import DROPPED, NONSENSE, Probe
from condpdiff.generate.generator import Draw, Generator
from condpdiff.generate.settings import Sample
from condpdiff.zoo.normalized import Frame, load_frame
from condpdiff.zoo.settings import SHARED

if TYPE_CHECKING:  # the domain's own
    from condpdiff.text.score import Panel

SWAP = ["condition", "statistics", "task", "sample", "score"]

SwapRow = tuple[str, str, str, int, float]


@dataclass(frozen=True)
class Probing:
    """What the stage probe does: what it reads of params.yaml, and what the domain does for it."""

    settings: Probe
    method: str  # `normalize.method`
    condition: Condition
    dropout: float  # `ldm.condition_dropout`
    sample: Sample
    load_encoder: Callable[[Condition], Encode]
    load_panel: Callable[[str], "Panel"]  # of one task

    def write(self, data: Path, tasks: list[str], nonsense: Callable[[], Sequence[Any]], out: Path) -> None:
        """Write swap.csv (`SWAP`) to the folder `out`; no row where `probe.samples` is 0.

        Args:
            data: where the stages before wrote.
            nonsense: gives what conditions that mean nothing are encoded from; none for kinds without such a thing.
        Raises UserError: a file can't be read.
        """
        rows: list[SwapRow] = []
        if self.settings.samples:
            draw, inputs = Draw(self.sample, self.settings.samples, self.settings.seed), nonsense()
            y = load_conditions(data / "conditions" / FILE, tasks)
            if inputs:
                encode = projected(self.load_encoder(self.condition), self.condition, data)
                y[NONSENSE] = encode(inputs)
            w = conditioned(Generator.load(data), y, self.dropout, draw)
            frames = {task: load_frame(data / "normalized", task) for task in tasks}
            for task in tasks:
                rows += swap_rows(w, frames, self.method, task, self.load_panel(task).score)
        pd.DataFrame(rows, columns=SWAP).to_csv(out / "swap.csv", index=False)


def conditioned(generator: Generator, y: Mapping[str, Tensor], dropout: float, draw: Draw) -> dict[str, Tensor]:
    """w [count, K] under each condition [V, d_cond], and under none.
    Args: dropout: `ldm.condition_dropout`; with 0 the null condition was never trained, and is not asked.
    """
    found = {name: draw(generator, each, name) for name, each in y.items()}
    if dropout:
        unconditional = replace(generator, model=without_condition(generator.model))
        found[DROPPED] = draw(unconditional, next(iter(y.values())), DROPPED)
    return found


def without_condition(model: Denoiser) -> Denoiser:
    """A copy whose tau gives its null condition for every y, and mu(y) its mean over tasks.

    Time and performance still enter.
    """
    found = copy.deepcopy(model)
    last = found.tau.project[-1]
    with torch.no_grad():
        last.weight.zero_()  # type: ignore[operator]  # a Linear, which mypy does not know
        last.bias.copy_(found.tau.null)  # type: ignore[operator]
        found.mean.weight.zero_()
    return found


def swap_rows(
    w: Mapping[str, Tensor], frames: Mapping[str, Frame], method: str, task: str, score: Callable[[Tensor], float]
) -> list[SwapRow]:
    """Rows of `SWAP`, all scored on one task: every condition under the task's statistics, and every other task's
    statistics under the task's own condition.

    Args:
        w: generated [count, K] under each condition.
        method: `normalize.method`; where all tasks share their statistics, there are no other ones.
        score: theta [K_all] -> the task's score.
    """
    cells = [(condition, task) for condition in w]
    cells += [] if method in SHARED else [(task, other) for other in frames if other != task]
    return [
        (condition, statistics, task, sample, score(theta))
        for condition, statistics in tqdm(cells, desc=f"scores on {task}", unit="cell")
        for sample, theta in enumerate(frames[statistics].to_theta(w[condition]))
    ]
