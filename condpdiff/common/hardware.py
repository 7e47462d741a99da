"""Where a stage computes, by environment variables: no parameters of a run, so that all machines share a cache key.

CONDPDIFF_DEVICE: `cpu` or `cuda`; unset: `cuda` where there is one. CUDA_VISIBLE_DEVICES chooses which.
CONDPDIFF_PROCESSES: how many processes (one a GPU) share a training stage through Accelerate; unset: 1.
CONDPDIFF_TOGETHER: how many LoRAs of a family go through the base model side by side; unset: 12, or 8 to make images.
CONDPDIFF_SAVE_AFTER: the least seconds between two resume points of training; unset: 8.
CONDPDIFF_PART: `i/n`, the part of a family's members that a stage does (stage.py); unset: all.
CONDPDIFF_UNFINISHED: set by a stage for its processes, where what it has done lies (stage.py).
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from condpdiff.common.errors import UserError

DEVICE, PROCESSES = "CONDPDIFF_DEVICE", "CONDPDIFF_PROCESSES"
TOGETHER = "CONDPDIFF_TOGETHER"


def device() -> str:
    """`cpu`, `cuda`, or this process's own `cuda:N` where several share a stage; a UserError if it can't be had."""
    allowed = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    asked = os.environ.get(DEVICE) or allowed[-1]
    if asked not in allowed:
        raise UserError(f"environment: {DEVICE}: found {asked!r}, allowed here: {' or '.join(allowed)}")
    return f"cuda:{os.environ['LOCAL_RANK']}" if asked == "cuda" and "LOCAL_RANK" in os.environ else asked


def together(otherwise: int) -> int:
    """How many LoRAs of a family go through the base model side by side: fewer where memory is short."""
    return count(TOGETHER, otherwise)


def count(variable: str, otherwise: int) -> int:
    """A variable that is a number of at least 1; any other is a UserError."""
    asked = os.environ.get(variable) or str(otherwise)
    if not asked.isdigit() or int(asked) < 1:
        raise UserError(f"environment: {variable}: found {asked!r}, allowed: 1 or more")
    return int(asked)


def rank() -> int:
    """Number of this process among them; 0 writes the outs."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share(batch_size: int) -> int:
    """Rows of a batch that fall to this process. Raises UserError: the processes can't share a batch evenly."""
    n = world()
    if batch_size % n:
        raise UserError(f"environment: {PROCESSES}: found {n}, allowed: a divisor of batch_size = {batch_size}")
    return batch_size // n


def shared(main: Callable[[], None], families: Callable[[], bool] = lambda: False) -> Callable[[], None]:
    """`main` of a stage module, run by CONDPDIFF_PROCESSES processes side by side where that is above 1; by one where
    the stage works on families."""

    def start() -> None:
        n = count(PROCESSES, 1)
        if n == 1 or "RANK" in os.environ:
            return main()
        if families():
            print(f"families: one process, not {PROCESSES}={n}; docs/clusters.md shares out their members", flush=True)
            return main()
        if device() == "cpu":
            os.environ["ACCELERATE_USE_CPU"] = "true"
        module = sys.modules["__main__"].__spec__.name  # type: ignore[union-attr]
        # torchrun and not `accelerate launch`, which on a CPU starts one process; Accelerate reads what it sets.
        launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(n), "-m", module]
        sys.exit(subprocess.call([sys.executable, "-m", *launcher, *sys.argv[1:]]))

    return start


@contextmanager
def without_module(name: str) -> Iterator[None]:
    """Inside the block `import name` fails, unless it was imported before."""
    barred = name not in sys.modules
    if barred:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if barred:
            del sys.modules[name]
