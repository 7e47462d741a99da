"""A task's zoo folder: theta.safetensors [N_max, K], layout.json, head.safetensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from condpdiff.errors import UserError
from condpdiff.files import open_tensors, read_config, read_tensors
from condpdiff.layout import Layout, check_length

THETA = "theta.safetensors"
HEAD = "head.safetensors"


@dataclass
class Zoo:
    """The checkpoints of one task."""

    theta: Tensor
    """[N, K] float32, oldest first."""
    layout: Layout
    head: dict[str, Tensor]
    """The head's tensors by PEFT key; the same for every checkpoint."""
    config: dict[str, Any]
    """rank, alpha, target_modules, modules_to_save, task, num_outputs."""


def load_zoo(folder: Path, last: int) -> Zoo:
    """Read the last N = `last` checkpoints of a zoo folder.

    Raises:
        UserError: fewer checkpoints than asked for; layout and weights disagree; a file can't be read.
    """
    layout = Layout.load(folder)
    with open_tensors(folder / THETA) as file:
        rows = file.get_slice("theta")
        count, _ = rows.get_shape()
        if last > count:
            raise UserError(f"params.yaml: normalize.n_checkpoints: found {last}, allowed: at most {count} ({folder})")
        theta = rows[count - last :]
    check_length(theta, layout, str(folder / THETA))
    return Zoo(theta, layout, read_tensors(folder / HEAD), read_config(folder / THETA))
