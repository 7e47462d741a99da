"""The training loop of every network: one process or several, CPU or GPU, resumable, through Accelerate.

A resume point `<folder>/step-<n>/` is what `Accelerator.save_state` writes: the optimiser's moments, the states of the
random generators, the schedule, and in place of a model's weights those alone that train. It is written as
`step-<n>.partial` and then renamed, so that one that was half written is never read.
"""

import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import trange

from condpdiff.common.hardware import compiled, device, rank

if TYPE_CHECKING:  # a second's import
    from accelerate import Accelerator

LOG_EVERY = 20
Schedule = Callable[[int], float]
"""Steps done -> the factor of a parameter group's rate."""


def adamw(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """AdamW as all networks are trained that start from nothing."""
    return torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)


def rise_and_fall(steps: int) -> Schedule:
    """The rate rises over 5 % of the steps and falls along a cosine to 0."""
    warm = max(1, steps // 20)
    return lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))


class Stateful(Protocol):
    """What a resume point can hold."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


@dataclass(frozen=True)
class Resume:
    """Where a run leaves resume points, and looks for the last one."""

    folder: Path
    every: int
    """Steps between two of them."""
    state: Stateful
    """What a run gathers beside its weights and its curve."""


def fit(
    model: nn.Module,
    loss: Callable[[nn.Module, int], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    what: str,
    schedule: Schedule | Sequence[Schedule] | None = None,
    after_step: Callable[[int], None] = lambda done: None,
    log_every: int = LOG_EVERY,
    clip: float | None = 1.0,
    resume: Resume | None = None,
) -> pd.DataFrame:
    """Minimise `loss(network, step)` over steps 0 to `steps` - 1.

    On a GPU the network runs under bf16 autocast, and nothing waits for the device between two logged losses.

    Args:
        model: trained in place, on the device that it already lies on.
        loss: called with what stands for the model (compiled, or wrapped to average gradients over processes);
            what it draws comes of the step's number, or from torch's global generator, which each process seeds apart.
        optimizer: of the model's parameters. A group whose rate is 0 stands still: it is not even clipped with.
        what: the run's name in prints.
        schedule: of all parameter groups, or one of each; by default `rise_and_fall`.
        after_step: called with the number of steps done: 0 before the first one, and then after each.
        clip: largest norm of the gradient; None: as it is.
        resume: a run that ended early goes on from its last resume point, and ends as if nothing had been.

    Returns:
        The curve: columns step, loss (mean over the last `log_every` steps and all processes; read from the device
        only then).
    """
    from accelerate import Accelerator

    gpu = device() != "cpu"
    accelerator = Accelerator(cpu=not gpu, mixed_precision="bf16" if gpu else "no", step_scheduler_with_optimizer=False)
    if rank() > 0:
        torch.manual_seed(torch.initial_seed() + 7919 * rank())  # other rows and other noise in each process
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule or rise_and_fall(steps))  # type: ignore[arg-type]
    network, optimizer = accelerator.prepare(compiled(model), optimizer)
    run = _Run(optimizer)
    if resume is not None and (point := _attach(accelerator, resume, run, rates)) and rank() == 0:
        print(f"{what}: going on from {point.name.replace('-', ' ')}", flush=True)
    if run.done == 0:
        after_step(0)
    bar = trange(
        run.done, steps, initial=run.done, total=steps, desc=what, unit="step", mininterval=1, disable=rank() > 0
    )
    for step in bar:
        optimizer.zero_grad(set_to_none=True)  # before the forward pass, whose activations are the peak of memory
        with accelerator.autocast():
            value = loss(network, step)
        accelerator.backward(value)
        for parameter in run.standing():
            parameter.grad = None
        if clip is not None:
            accelerator.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        rates.step()
        run.done = step + 1
        run.since.append(value.detach())
        if run.done % log_every == 0 or run.done == steps:
            bar.set_postfix(loss=f"{run.log(accelerator):.4f}", refresh=False)
        after_step(run.done)
        if resume is not None and run.done % resume.every == 0:
            _save(accelerator, resume.folder, run.done)
    accelerator.free_memory()
    return pd.DataFrame(run.curve, columns=["step", "loss"])


class _Run:
    """How far a run is: steps done, the curve, and the weights that the optimiser moves."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.done = 0
        self.curve: list[tuple[int, float]] = []
        self.since: list[Tensor] = []
        """Losses since the curve's last point."""

    def standing(self) -> list[nn.Parameter]:
        """Parameters whose rate is 0."""
        return [p for group in self.optimizer.param_groups if group["lr"] == 0 for p in group["params"]]

    def log(self, accelerator: "Accelerator") -> float:
        """Add a point to the curve."""
        mean = float(accelerator.reduce(torch.stack(self.since).mean(), reduction="mean"))
        self.curve.append((self.done, mean))
        self.since = []
        return mean

    def state_dict(self) -> dict[str, Any]:
        weights = [p.detach() for group in self.optimizer.param_groups for p in group["params"]]
        return {"done": self.done, "curve": self.curve, "since": self.since, "weights": weights}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done, self.curve = state["done"], state["curve"]
        self.since = [loss.to(device()) for loss in state["since"]]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for parameter, weight in zip(parameters, state["weights"], strict=True):
            parameter.copy_(weight)


def _attach(accelerator: "Accelerator", resume: Resume, *objects: Any) -> Path | None:
    """Say what a resume point holds, and load the last one; gives its folder."""
    # What trains lies in `objects`; the frozen weights around it are the base model's.
    accelerator.register_save_state_pre_hook(lambda models, weights, folder: weights.clear())
    accelerator.register_load_state_pre_hook(lambda models, folder: models.clear())
    accelerator.register_for_checkpointing(*objects, resume.state)
    points = _points(resume.folder)
    if not points:
        return None
    accelerator.load_state(str(points[-1]))
    return points[-1]


def _points(folder: Path) -> list[Path]:
    """The whole resume points of a folder, the last one last."""
    whole = [path for path in folder.glob("step-*") if not path.suffix]
    return sorted(whole, key=lambda path: int(path.name.removeprefix("step-")))


def _save(accelerator: "Accelerator", folder: Path, done: int) -> None:
    """Write a resume point; then the ones before it go."""
    partial = folder / f"step-{done}.partial"
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if rank() == 0:
        partial.rename(partial.with_suffix(""))
        for point in _points(folder)[:-1]:
            shutil.rmtree(point)
    accelerator.wait_for_everyone()
