"""A zoo's folder: theta.safetensors [N_max, K], head.safetensors, and layout.json: where each tensor lies in theta.

A family's holds those of all its members, theta [Q, N_max, K]; `data/zoo/<family>/<q>` names the q-th of them.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_config, read_json, read_tensors, write_json, write_tensors
from condpdiff.common.matrices import RowFile, whole

THETA, HEAD, LAYOUT = "theta.safetensors", "head.safetensors", "layout.json"
_LAYER = re.compile(r"\.(?:layer|layers|h|block|blocks|transformer_blocks)\.(\d+)\.")


@dataclass(frozen=True)
class Entry:
    """One LoRA tensor: theta[offset : offset + size] reshaped to `shape`."""

    key: str  # in a PEFT adapter file, e.g. `base_model.model.bert...query.lora_A.weight`
    shape: tuple[int, ...]
    offset: int
    layer: int  # of the transformer; -1 outside all layers
    module: str  # its name inside the layer, e.g. `attention.self.query`

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def slice(self) -> slice:
        return slice(self.offset, self.offset + self.size)


_ENTRIES = TypeAdapter(tuple[Entry, ...])


@dataclass(frozen=True)
class Layout:
    """All LoRA tensors of a model, in the order in which they lie in theta."""

    entries: tuple[Entry, ...]

    @staticmethod
    def of(entries: Sequence[Entry]) -> "Layout":
        """The entries one behind the other, whatever their offsets were."""
        ends = accumulate(entry.size for entry in entries)
        return Layout(tuple(replace(e, offset=end - e.size) for e, end in zip(entries, ends, strict=True)))

    @property
    def K(self) -> int:  # noqa: N802  the paper's letter
        """Length of theta."""
        return sum(entry.size for entry in self.entries)

    def select_layers(self, layers: tuple[int, int] | None) -> tuple["Layout", Tensor]:
        """The entries of layers first..last (both included), re-offset, and their positions [K'] in the full theta."""
        chosen = [e for e in self.entries if layers is None or layers[0] <= e.layer <= layers[1]]
        last = max(e.layer for e in self.entries)
        if layers is not None and (layers[1] > last or not chosen):
            raise UserError(f"params.yaml: normalize.layers: found {list(layers)}, allowed: layers 0 to {last}")
        return Layout.of(chosen), torch.cat([torch.arange(self.K)[e.slice] for e in chosen])

    def save(self, folder: Path) -> None:
        """Write `layout.json`: a list of entries."""
        write_json(folder / LAYOUT, [asdict(entry) for entry in self.entries])

    @staticmethod
    def load(folder: Path) -> "Layout":
        """Read `layout.json` of a folder. Raises UserError: it is absent, or no layout."""
        try:
            entries = _ENTRIES.validate_python(read_json(folder / LAYOUT))
        except ValidationError:
            entries = ()
        if not entries or any(min(e.shape, default=0) < 1 for e in entries) or Layout.of(entries).entries != entries:
            raise UserError(f"{folder / LAYOUT}: not a layout: a list of key, shape, offset, layer, module, no gaps")
        return Layout(entries)


def layout_of(model: nn.Module) -> Layout:
    """Layout of a PEFT model's LoRA tensors, in the order of `named_parameters` (works on the meta device)."""
    entries = []
    for name, parameter in model.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            key = name.replace(".default.", ".")
            layer = _LAYER.search(key)
            module = key[layer.end() if layer else 0 :].split(".lora_")[0]
            entries.append(Entry(key, tuple(parameter.shape), 0, int(layer[1]) if layer else -1, module))
    return Layout.of(entries)


def flatten(tensors: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """LoRA tensors by key -> theta [K], float32; a UserError where one is missing or has another shape."""
    parts = []
    for entry in layout.entries:
        found = tensors.get(entry.key)
        if found is None or tuple(found.shape) != entry.shape:
            what = "no such tensor" if found is None else f"shape {list(found.shape)}"
            raise UserError(f"layout: {entry.key}: found {what}, allowed: shape {list(entry.shape)}")
        parts.append(found.detach().reshape(-1).float())
    return torch.cat(parts)


def unflatten(theta: Tensor, layout: Layout) -> dict[str, Tensor]:
    """theta [K] -> LoRA tensors by key: the inverse of `flatten`; a UserError where theta has another length."""
    check_length(theta, layout, "theta")
    return {entry.key: theta[entry.slice].reshape(entry.shape) for entry in layout.entries}


def check_length(vectors: Any, layout: Layout, where: str) -> None:
    """Raise a UserError unless the last axis of `vectors` has the layout's K."""
    if vectors.shape[-1] != layout.K:
        raise UserError(f"{where}: found {vectors.shape[-1]} weights, allowed: the layout's K = {layout.K}")


def digest(theta: Tensor | None) -> str:
    """Tells LoRAs [K] apart; None is no LoRA."""
    return "none" if theta is None else hashlib.sha256(theta.contiguous().numpy().data).hexdigest()


@dataclass
class Zoo:
    """The checkpoints of one task."""

    theta: Tensor  # [N, K] float32, oldest first
    layout: Layout
    head: dict[str, Tensor]  # by PEFT key; the same for every checkpoint
    config: dict[str, Any]  # rank, alpha, target_modules, modules_to_save, task, num_outputs


def save_zoo(folder: Path, zoo: Zoo, **beside: Tensor) -> None:
    """Write a zoo's folder, with tensors `beside` theta [N, K], or a family's [Q, N, K]."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / THETA, {"theta": zoo.theta, **beside}, zoo.config)
    write_tensors(folder / HEAD, zoo.head)
    zoo.layout.save(folder)


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
