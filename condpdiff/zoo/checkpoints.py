"""A task's zoo folder: theta.safetensors [N_max, K], layout.json, head.safetensors.

A family's holds those of all its members, theta [Q, N_max, K]; `data/zoo/<family>/<q>` names the q-th of them.
"""

from collections.abc import Sequence
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

    theta: Tensor  # [N, K] float32, oldest first
    layout: Layout
    head: dict[str, Tensor]  # by PEFT key; the same for every checkpoint
    config: dict[str, Any]  # rank, alpha, target_modules, modules_to_save, task, num_outputs


def load_zoo(folder: Path, last: int | None = None) -> Zoo:
    """The last N = `last` checkpoints of a zoo folder, by default all of them; raises as `open_zoo`."""
    theta, layout = open_zoo(folder, last)
    return Zoo(whole(theta), layout, read_tensors(theta.path.parent / HEAD), read_config(theta.path))


def open_zoo(folder: Path, last: int | None = None) -> tuple[RowFile, Layout]:
    """theta [N, K] of the last N = `last` checkpoints, to be read in parts, and its layout; a UserError if there are
    fewer, layout and weights disagree, or a file can't be read."""
    block = None
    if not folder.is_dir() and folder.name.isdigit():
        folder, block = folder.parent, int(folder.name)
    layout, theta = Layout.load(folder), RowFile(folder / THETA, "theta", block=block)
    if last is not None:
        if last > (n := theta.shape[0]):
            raise UserError(f"params.yaml: normalize.n_checkpoints: found {last}, allowed: at most {n} ({folder})")
        theta = RowFile(folder / THETA, "theta", last, block)
    check_length(theta, layout, str(folder / THETA))
    return theta, layout


def open_zoos(folder: Path, names: Sequence[str], last: int | None = None) -> tuple[dict[str, RowFile], Layout]:
    """The same of several tasks of a folder, and the layout that they share; a UserError where they share none."""
    zoos = {name: open_zoo(folder / name, last) for name in names}
    first, (_, layout) = folder / names[0], zoos[names[0]]
    for name, (_, other) in zoos.items():
        if other != layout:
            raise UserError(f"{folder / name}/layout.json: found another layout than {first}'s; same base and rank?")
    return {name: theta for name, (theta, _) in zoos.items()}, layout
