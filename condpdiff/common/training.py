"""The training loop of every network: one process or several, CPU or GPU, resumable, through Accelerate.

A resume point `<folder>/<steps done>-<process>.pt` holds the weights that train, the optimiser, the schedule, torch's
random generators, and what a run gathers beside. It takes its name when it is whole.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import trange

from condpdiff.common.errors import UserError
from condpdiff.common.hardware import compiled, device, rank, world

if TYPE_CHECKING:  # a second's import
    from accelerate import Accelerator

LOG_EVERY = 20
SAVE_AFTER = "CONDPDIFF_SAVE_AFTER"
"""The variable that holds the least seconds between two resume points, which take a twentieth of the time at most."""
Schedule = Callable[[int], float]  # steps done -> the factor of a parameter group's rate


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
    resume: Path | None = None,
    state: Sequence[Stateful] = (),
    rate: str = "the rate",
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
        resume: where a run that ended early goes on from its last resume point, to end as if nothing had been.
        state: what a run gathers beside its weights and its curve.
        rate: the key of the rate, for the error.

    Raises:
        UserError: the loss is no number any more.

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
    run = _Run(optimizer, rates, state)
    points = None if resume is None else _Points(resume)
    if points is not None and points.load(run) and rank() == 0:
        print(f"{what}: going on from step {run.done}", flush=True)
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
        logs = run.done % log_every == 0 or run.done == steps
        if logs:
            mean = run.log(accelerator)
            if not math.isfinite(mean):
                raise UserError(f"{what}: step {run.done}: the loss is {mean}; lower {rate}")
            bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
        after_step(run.done)
        if logs and points is not None and points.due():
            points.save(run)
    accelerator.free_memory()
    return pd.DataFrame(run.curve, columns=["step", "loss"])


class _Run:
    """How far a run is: steps done, the curve, and all that moves."""

    def __init__(self, optimizer: Any, rates: Any, more: Sequence[Stateful]) -> None:
        self.optimizer, self.more = optimizer, [optimizer, rates, *more]
        self.done = 0
        self.curve: list[tuple[int, float]] = []
        self.since: list[Tensor] = []  # losses since the curve's last point

    @property
    def weights(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

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
        random = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ())]
        more = [each.state_dict() for each in self.more]
        weights = [p.detach() for p in self.weights]
        return {"done": self.done, "curve": self.curve, "weights": weights, "random": random, "more": more}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done, self.curve = state["done"], state["curve"]
        for parameter, weight in zip(self.weights, state["weights"], strict=True):
            parameter.copy_(weight)
        for each, its in zip(self.more, state["more"], strict=True):
            each.load_state_dict(its)
        cpu, *gpus = state["random"]
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)


class _Points:
    """The resume points of a run: a file a process, of the same step, and the last one alone."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.after = folder, float(os.environ.get(SAVE_AFTER, "8"))
        self.next = time.monotonic() + self.after

    def due(self) -> bool:
        """Whether it is time for one; the first process decides for all."""
        due = torch.tensor(int(time.monotonic() >= self.next), device=device())
        if world() > 1:
            torch.distributed.broadcast(due, 0)
        return bool(due)

    def load(self, run: _Run) -> bool:
        """Put the run where the last point that all processes have left it; whether there is one."""
        steps = [{int(p.stem.partition("-")[0]) for p in self.folder.glob(f"*-{r}.pt")} for r in range(world())]
        if not (whole := set.intersection(*steps)):
            return False
        run.load_state_dict(torch.load(self._path(max(whole)), map_location="cpu", weights_only=True))
        return True

    def save(self, run: _Run) -> None:
        """Write this process's file; the one before it goes once all have written theirs."""
        began, partial = time.monotonic(), self.folder / f"{rank()}.partial"
        with partial.open("wb") as file:
            torch.save(run.state_dict(), file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._path(run.done))
        if world() > 1:
            torch.distributed.barrier()
        for old in set(self.folder.glob(f"*-{rank()}.pt")) - {self._path(run.done)}:
            old.unlink()
        now = time.monotonic()
        self.next = now + (max(self.after, 20 * (now - began)) if self.after else 0)

    def _path(self, done: int) -> Path:
        return self.folder / f"{done}-{rank()}.pt"
