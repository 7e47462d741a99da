"""The training loop of every network: one process or several, CPU or GPU, resumable, through Accelerate.

A resume point `<folder>/<steps done>-<process>.pt` holds the weights that train, the optimiser, the schedule, torch's
random generators, and what a run gathers beside. It takes its name when it is whole.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import trange

from condpdiff.common.errors import UserError
from condpdiff.common.hardware import device, rank, world

LOG_EVERY = 20
DIVERGED = 2  # times its first tenth's loss: what a run's last tenth is warned of
# The variable that holds the least seconds between two resume points, which take a twentieth of the time at most.
SAVE_AFTER = "CONDPDIFF_SAVE_AFTER"
Schedule = Callable[[int], float]  # steps done -> the factor of a parameter group's rate


def adamw(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """AdamW as all networks are trained that start from nothing."""
    return torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)


def rise_and_fall(steps: int) -> Schedule:
    """The rate rises over 5 % of the steps and falls along a cosine to 0."""
    warm = max(1, steps // 20)
    return lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))


class Gathered(dict[str, Any]):
    """What a run gathers beside its weights, by name, as a resume point holds it."""

    def state_dict(self) -> dict[str, Any]:
        return dict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.update(state)


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
    state: Sequence[Any] = (),
    rate: str = "the rate",
) -> pd.DataFrame:
    """Minimise `loss(network, step)` over steps 0 to `steps` - 1.

    On a GPU the network runs under bf16 autocast, and nothing waits for the device between two logged losses.

    Args:
        model: trained in place, on the device that it already lies on.
        loss: called with the model, wrapped to average gradients over processes; what it draws comes of the step's
            number, or from torch's global generator, which each process seeds apart.
        optimizer: of the model's parameters. A group whose rate is 0 stands still: it is not even clipped with.
        what: the run's name in prints.
        schedule: of all parameter groups, or one of each; by default `rise_and_fall`.
        after_step: called with the number of steps done: 0 before the first one, and then after each.
        clip: largest norm of the gradient; None: as it is.
        resume: where a run that ended early goes on from its last resume point, to end as if nothing had been.
        state: what else a resume point holds: each has `state_dict` and `load_state_dict`.
        rate: the key of the rate, for the error.

    Gives the curve: columns step, loss (mean over the last `log_every` steps and all processes; read from the device
    only then). A loss that rose is told. Raises UserError: the loss is no number any more.
    """
    from accelerate import Accelerator

    gpu = device() != "cpu"
    accelerator = Accelerator(cpu=not gpu, mixed_precision="bf16" if gpu else "no", step_scheduler_with_optimizer=False)
    if rank() > 0:
        torch.manual_seed(torch.initial_seed() + 7919 * rank())  # other rows and other noise in each process
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule or rise_and_fall(steps))  # type: ignore[arg-type]
    network, optimizer = accelerator.prepare(model, optimizer)
    run = _Run(optimizer, [optimizer, rates, *state], resume)
    if run.goes_on() and rank() == 0:
        print(f"{what}: going on from step {run.done}", flush=True)
    if run.done == 0:
        after_step(0)
    how: Any = {"desc": what, "unit": "step", "mininterval": 1, "disable": rank() > 0}
    bar = trange(run.done, steps, initial=run.done, total=steps, **how)
    for step in bar:
        optimizer.zero_grad(set_to_none=True)  # before the forward pass, whose activations are the peak of memory
        with accelerator.autocast():
            value = loss(network, step)
        accelerator.backward(value)
        for group in optimizer.param_groups:
            for parameter in group["params"] if group["lr"] == 0 else ():
                parameter.grad = None
        if clip is not None:
            accelerator.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        rates.step()
        run.done = step + 1
        run.since.append(value.detach())
        logs = run.done % log_every == 0 or run.done == steps
        if logs:
            mean = float(accelerator.reduce(torch.stack(run.since).mean(), reduction="mean"))
            run.curve.append((run.done, mean))
            run.since = []
            if not math.isfinite(mean):
                raise UserError(f"{what}: step {run.done}: the loss is {mean}; lower {rate}")
            bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
        after_step(run.done)
        if logs and run.is_due():
            run.save()
    accelerator.free_memory()
    curve = pd.DataFrame(run.curve, columns=["step", "loss"])
    tenth = max(1, len(curve) // 10)
    first, last = curve["loss"][:tenth].mean(), curve["loss"][-tenth:].mean()
    if rank() == 0 and last > DIVERGED * first:
        print(f"warning: {what}: the loss rose from {first:.4f} to {last:.4f}; lower {rate}", flush=True)
    return curve


class _Run:
    """How far a run is, and its resume points: a file a process, of the same step, and the last one alone."""

    def __init__(self, optimizer: Any, moving: Sequence[Any], folder: Path | None) -> None:
        """Args: moving: what has a state besides; folder: of the resume points, if there are any."""
        self.weights = [p for group in optimizer.param_groups for p in group["params"]]
        self.moving, self.folder = moving, folder
        self.done = 0
        self.curve: list[tuple[int, float]] = []
        self.since: list[Tensor] = []  # losses since the curve's last point
        asked = os.environ.get(SAVE_AFTER) or "8"
        if not asked.replace(".", "", 1).isdecimal():
            raise UserError(f"environment: {SAVE_AFTER}: found {asked!r}, allowed: seconds, 0 or more")
        self.after = float(asked)
        self.next = time.monotonic() + self.after

    @torch.no_grad()
    def goes_on(self) -> bool:
        """Put the run where the last point that all processes have left it; whether there is one."""
        if self.folder is None:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        steps = [{int(p.stem.partition("-")[0]) for p in self.folder.glob(f"*-{r}.pt")} for r in range(world())]
        if not (whole := set.intersection(*steps)):
            return False
        state = torch.load(self.folder / f"{max(whole)}-{rank()}.pt", map_location="cpu", weights_only=True)
        self.done, self.curve = state["done"], state["curve"]
        for parameter, weight in zip(self.weights, state["weights"], strict=True):
            parameter.copy_(weight)
        for each, its in zip(self.moving, state["more"], strict=True):
            each.load_state_dict(its)
        cpu, *gpus = state["random"]
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)
        return True

    def is_due(self) -> bool:
        """Whether it is time for a point; the first process decides for all."""
        if self.folder is None:
            return False
        due = torch.tensor(int(time.monotonic() >= self.next), device=device())
        if world() > 1:
            torch.distributed.broadcast(due, 0)
        return bool(due)

    def save(self) -> None:
        """Write this process's file; the one before it goes once all have written theirs."""
        assert self.folder is not None
        began, partial = time.monotonic(), self.folder / f"{rank()}.partial"
        path = self.folder / f"{self.done}-{rank()}.pt"
        random = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ())]
        more, weights = [each.state_dict() for each in self.moving], [p.detach() for p in self.weights]
        state = {"done": self.done, "curve": self.curve, "weights": weights, "random": random, "more": more}
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        if world() > 1:
            torch.distributed.barrier()
        for old in set(self.folder.glob(f"*-{rank()}.pt")) - {path}:
            old.unlink()
        now = time.monotonic()
        self.next = now + (max(self.after, 20 * (now - began)) if self.after else 0)
