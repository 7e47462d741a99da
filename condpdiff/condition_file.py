"""The folder `data/conditions/`: y [V, d_cond] of every task, and what it was made of, in words."""

from pathlib import Path

from torch import Tensor

from condpdiff.files import read_tensors, write_tensors

FILE = "conditions.safetensors"
SHOWN = "shown.json"


def save_conditions(path: Path, y: dict[str, Tensor]) -> None:
    """Write y [V, d_cond] of every task; `load_conditions` is its inverse."""
    write_tensors(path, y)


def load_conditions(path: Path, tasks: list[str]) -> dict[str, Tensor]:
    """y [V, d_cond] of every task, in the run's order."""
    tensors = read_tensors(path)
    return {task: tensors[task] for task in tasks}
