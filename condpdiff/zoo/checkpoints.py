"""A task's zoo folder: theta.safetensors [N_max, K], layout.json, head.safetensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_config, read_tensors
from condpdiff.common.matrices import RowFile, whole
from condpdiff.zoo.layout import Layout, check_length

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


def load_zoo(folder: Path, last: int | None = None) -> Zoo:
    """Read the last N = `last` checkpoints of a zoo folder, by default all of them.

    Raises:
        UserError: fewer checkpoints than asked for; layout and weights disagree; a file can't be read.
    """
    theta, layout = open_zoo(folder, last)
    return Zoo(whole(theta), layout, read_tensors(folder / HEAD), read_config(folder / THETA))


def open_zoo(folder: Path, last: int | None = None) -> tuple[RowFile, Layout]:
    """theta [N, K] of the last N = `last` checkpoints, to be read in parts, and its layout.

    Raises:
        UserError: as `load_zoo`.
    """
    layout, theta = Layout.load(folder), RowFile(folder / THETA, "theta")
    if last is not None:
        count = theta.shape[0]
        if last > count:
            raise UserError(f"params.yaml: normalize.n_checkpoints: found {last}, allowed: at most {count} ({folder})")
        theta = RowFile(folder / THETA, "theta", last)
    check_length(theta, layout, str(folder / THETA))
    return theta, layout
