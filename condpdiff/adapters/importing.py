"""`condpdiff import`: adapters from elsewhere become the zoo of a task, `inputs/<task>/`, in place of fine-tuning.

What is imported is held against params.yaml: a checkpoint that the pipeline can't merge exactly is refused by name.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condpdiff.adapters.formats import Adapter, is_adapter, read_adapter
from condpdiff.adapters.place import architecture, expected
from condpdiff.common.errors import UserError
from condpdiff.common.files import (
    as_spelt,
    new_directory,
    open_tensors,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from condpdiff.common.pretrained import SOURCE
from condpdiff.common.task import INPUTS, Base, read_task, task_path
from condpdiff.domain import module
from condpdiff.experiments.describe import model_config
from condpdiff.experiments.params import load_params
from condpdiff.zoo.checkpoints import HEAD, THETA, Zoo
from condpdiff.zoo.layout import LAYOUT, Layout, flatten, unflatten

BASE = Path("data/base")
NAMES = "adapters.json"
"""Beside an imported zoo: what each of its checkpoints was called."""


@dataclass(frozen=True)
class Found:
    """One checkpoint of a source."""

    name: str
    step: int
    read: Callable[[], Adapter]
    description: str | None = None


def import_zoo(source: Path, name: str, skip_odd: bool, say: Callable[[str], None]) -> None:
    """Write `inputs/<name>/` from a source, and say what else is to do; an earlier import of that name is replaced.

    Args:
        source: as `checkpoints` takes it.
        skip_odd: leave adapters that don't fit out, and say which and why.

    Raises:
        UserError: there is no such task; an adapter can't be read or does not fit; nothing is written then.
    """
    params, tasks = load_params()
    task = tasks[name] if name in tasks else read_task(name, module("task", params.domain).Task)
    if task.members is not None and (skip_odd or params.domain == "text"):
        why = "--skip-odd would move members" if skip_odd else "its head is no adapter's"
        raise UserError(f"{task_path(name)}: a family, allowed: a task, or a family of styles whole ({why})")
    want = expected(name, task, params.collect, _base_config(params.base, params.domain))
    kept: list[Found] = []
    rows, heads = [], []
    for each in checkpoints(source, params.collect.alpha):
        try:
            adapter = each.read()
            check(adapter, want, params.base)
        except UserError as error:
            line = str(error) if str(source) in str(error) else f"{each.name}: {error}"
            if not skip_odd:
                raise UserError(f"{line}; --skip-odd leaves such adapters out") from None
            say(f"skipped: {line}")
            continue
        kept.append(each)
        rows.append(flatten(adapter.tensors, want.layout))
        heads.append(adapter.part(lora=False))
    if not kept:
        raise UserError(f"{source}: none of its adapters fits params.yaml")
    apart = max((float((h[key] - heads[0][key]).abs().max()) for h in heads for key in h), default=0.0)
    if apart:
        say(f"the adapters' heads differ, by up to {apart:.2g}: their mean is the head of every checkpoint")
    head = {key: torch.stack([h[key] for h in heads]).mean(0) if apart else heads[0][key] for key in sorted(want.head)}
    out, theta = INPUTS / name, torch.stack(rows)
    if task.members is not None:
        if len(rows) % (q := task.members.total):
            raise UserError(
                f"{source}: found {len(rows)} adapters, allowed: a multiple of {q}, one member's after another's"
            )
        theta = theta.unflatten(0, (q, -1))
    with new_directory(out) as folder:
        steps = torch.tensor([each.step for each in kept]).reshape(theta.shape[:-1])
        write_tensors(folder / THETA, {"theta": theta, "steps": steps}, want.config)
        write_tensors(folder / HEAD, head)
        want.layout.save(folder)
        write_json(folder / NAMES, [{"id": each.name, "description": each.description} for each in kept])
    n, n_max = theta.shape[-2], params.collect.max_checkpoints
    say(f"{out}: {len(kept)} checkpoints of {want.layout.K:,} weights, {kept[0].name} to {kept[-1].name}")
    if n < n_max:
        say(f"params.yaml: collect.max_checkpoints is {n_max}: set it, and normalize.n_checkpoints, to at most {n}")
    say(f"now set `zoo: {out}` in {task_path(name)}, and track {out} with `dvc add` or `git add`")


def _base_config(base: Base, domain: str) -> dict[str, Any]:
    """The base model's architecture: the run's own, where it is the one that params.yaml names."""
    source = BASE / SOURCE
    if source.is_file() and read_json(source).items() >= base.model_dump(include={"source", "name"}).items():
        return architecture(BASE)
    if (config := model_config(base, domain)) is None:
        raise UserError(f"params.yaml: base.name: {base.name!r} is not here yet; run `dvc repro prepare-base` first")
    return config


def checkpoints(source: Path, alpha: float) -> list[Found]:
    """The checkpoints of a source, oldest first, none of them read yet.

    Args:
        source: a folder of adapters; a Trainer's folder, with `checkpoint-N/`; a stacked safetensors, with `theta`
            [N, K] and layout.json beside it; or a `.jsonl` of `{id, description, path}`.
        alpha: of a stacked file that does not say it.

    Raises:
        UserError: it is nothing that can be imported.
    """
    if not source.exists():
        allowed = "a folder of adapters, a Trainer's folder, a safetensors of theta [N, K], or a .jsonl"
        raise UserError(f"{source}: no such source, allowed: {allowed}")
    if source.is_file():
        return _listed(source) if source.suffix == ".jsonl" else _stacked(source, alpha)
    if (source / THETA).is_file():
        return _stacked(source / THETA, alpha)
    # A Trainer's folder holds the last state a second time, beside its checkpoints.
    paths = [path for path in source.iterdir() if _step(path)] or [*source.iterdir()]
    found = [path for path in paths if is_adapter(path) or (path.is_dir() and any(map(is_adapter, path.iterdir())))]
    if not found:
        raise UserError(f"{source}: no adapter in its folders, allowed: one adapter a folder, or checkpoint-N folders")
    found.sort(key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)])
    return [Found(path.name, _step(path) or i, partial(read_adapter, path)) for i, path in enumerate(found, 1)]


def _step(path: Path) -> int:
    """N of checkpoint-N, 0 of others."""
    match = re.fullmatch(r"checkpoint-(\d+)", path.name)
    return int(match[1]) if match and path.is_dir() else 0


def _listed(source: Path) -> list[Found]:
    """A line an adapter; its path starts at the list's folder."""
    found = []
    for number, line in enumerate(source.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            item = json.loads(line)
            read = partial(read_adapter, as_spelt(source.parent / item["path"]))
            found.append(Found(str(item["id"]), number, read, item.get("description")))
        except (ValueError, KeyError, TypeError, OSError, RecursionError):
            raise UserError(f"{source}: line {number}: allowed: {{id, description, path}} in JSON") from None
    return found


def _stacked(path: Path, alpha: float) -> list[Found]:
    """theta [N, K] with layout.json beside it, and head.safetensors where there is one, as a zoo folder has them."""
    tensors = read_tensors(path)
    with open_tensors(path) as file:
        said = (file.metadata() or {}).get("config", "{}")
    layout, theta = Layout.load(path.parent), tensors.get("theta", torch.empty(0))
    if theta.ndim != 2 or theta.shape[1] != layout.K:
        raise UserError(
            f"{path}: theta: found {list(theta.shape)}, allowed: [N, {layout.K}], as {LAYOUT} beside it says"
        )
    head = read_tensors(path.parent / HEAD) if (path.parent / HEAD).is_file() else {}
    steps = tensors.get("steps", torch.arange(1, len(theta) + 1)).flatten().tolist()
    if len(steps) != len(theta):
        raise UserError(f"{path}: steps: found {len(steps)}, allowed: one of each of {len(theta)} checkpoints")
    try:
        config = dict(json.loads(said))
        rank, alpha = int(config.get("rank") or min(layout.entries[0].shape)), float(config.get("alpha", alpha))
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise UserError(f"{path}: config: found {said[:60]!r}, allowed: rank and alpha in JSON") from None

    def row(values: Tensor) -> Adapter:
        return Adapter({k: t.float() for k, t in {**unflatten(values, layout), **head}.items()}, rank, alpha)

    return [Found(f"{path.name}[{i}]", steps[i], partial(row, values)) for i, values in enumerate(theta)]


def check(adapter: Adapter, want: Zoo, base: Base) -> None:
    """Raise a UserError unless the adapter is one of the run's: its base, rank, alpha, modules, shapes and head."""
    if adapter.base and not _same_base(adapter.base, base):
        tail = "where it is the same model, name it so in adapter_config.json"
        raise UserError(f"base model: found {adapter.base}, allowed: {base.name} (params.yaml: base.name); {tail}")
    shapes = {entry.key: entry.shape for entry in want.layout.entries}
    shapes |= {key: tuple(tensor.shape) for key, tensor in want.head.items()}
    for key in sorted(adapter.tensors.keys() - shapes.keys()):
        raise UserError(f"{key}: outside the run's modules (params.yaml: collect.target_modules), and no head")
    for key, found in (("rank", adapter.rank), ("alpha", adapter.alpha)):
        if found != want.config[key]:
            raise UserError(f"{key}: found {found:g}, allowed: {want.config[key]:g} (params.yaml: collect.{key})")
    for key, shape in shapes.items():
        if (tensor := adapter.tensors.get(key)) is None:
            asks = "collect.target_modules" if ".lora_" in key else "base: the head, PEFT's modules_to_save"
            raise UserError(f"no tensor {key}, which the run needs (params.yaml: {asks})")
        if tuple(tensor.shape) != shape:
            raise UserError(f"{key}: found shape {list(tensor.shape)}, allowed: {list(shape)}")
        if not tensor.isfinite().all():
            raise UserError(f"{key}: holds values that are no numbers")


def _same_base(found: str, base: Base) -> bool:
    """Whether an adapter's base is the run's, by its last name: folders and hub ids may hold one model."""
    one, other = Path(found).name.lower(), Path(base.name).name.lower()
    packaged = base.source == "package" and one in other  # a package's name has more in it than the model's
    return one == other or packaged or Path(found) == BASE
