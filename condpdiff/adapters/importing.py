"""`condpdiff import`: adapters from elsewhere become the zoo of a task, `inputs/<task>/`, in place of fine-tuning.

What is imported is held against params.yaml: a checkpoint that the pipeline can't merge exactly is refused by name.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from condpdiff.adapters.formats import Adapter, as_alpha, in_header, is_adapter, read_adapter
from condpdiff.adapters.place import expected
from condpdiff.common.errors import UserError
from condpdiff.common.files import as_spelt, check_ours, new_directory, read_json, read_tensors, write_json
from condpdiff.common.pretrained import SOURCE
from condpdiff.common.task import INPUTS, Base, read_task, task_path
from condpdiff.domain import module
from condpdiff.experiments.params import load_params
from condpdiff.zoo.checkpoints import HEAD, LAYOUT, THETA, Layout, Zoo, flatten, save_zoo, unflatten

BASE = Path("data/base")
NAMES = "adapters.json"  # beside an imported zoo: what each of its checkpoints was called


class Found(NamedTuple):
    """One checkpoint of a source."""

    name: str
    step: int
    where: Path | Adapter
    description: str | None = None


def import_zoo(source: Path, name: str, skip_odd: bool, say: Callable[[str], None]) -> None:
    """Write `inputs/<name>/` from a source (`checkpoints`), and say what else is to do; replaces an earlier import.
    With `skip_odd` adapters that don't fit are left out, and named. A UserError, and nothing written: there is no such
    task, or an adapter can't be read or does not fit."""
    params, tasks = load_params()
    task = tasks[name] if name in tasks else read_task(name, module("task", params.domain).Task)
    if task.members is not None and (skip_odd or params.domain == "text"):
        why = "--skip-odd would move members" if skip_odd else "its head is no adapter's"
        raise UserError(f"{task_path(name)}: a family, allowed: a task, or a family of styles whole ({why})")
    base, here = params.base, BASE / SOURCE
    if not here.is_file() or not read_json(here).items() >= base.model_dump(include={"source", "name"}).items():
        raise UserError(f"params.yaml: base.name: {base.name!r} is not here yet; run `dvc repro prepare-base` first")
    want = expected(name, task, params.collect, BASE)
    found, adapters = [], []
    for each in checkpoints(source, params.collect.alpha):
        try:
            adapter = read_adapter(each.where) if isinstance(each.where, Path) else each.where
            check(adapter, want, base)
        except UserError as error:
            line = str(error) if str(source) in str(error) else f"{each.name}: {error}"
            if not skip_odd:
                raise UserError(f"{line}; --skip-odd leaves such adapters out") from None
            say(f"skipped: {line}")
        else:
            found.append(each)
            adapters.append(adapter.tensors)
    if not found:
        raise UserError(f"{source}: none of its adapters fits params.yaml")
    theta, steps = torch.stack([flatten(each, want.layout) for each in adapters]), torch.tensor([f.step for f in found])
    if task.members is not None:
        if len(theta) % (q := task.members.total):
            says = f"allowed: a multiple of {q}, one member's after another's"
            raise UserError(f"{source}: found {len(theta)} adapters, {says}")
        theta, steps = theta.unflatten(0, (q, -1)), steps.unflatten(0, (q, -1))
    heads = {key: torch.stack([each[key] for each in adapters]) for key in sorted(want.head)}
    if apart := max((float((rows - rows[0]).abs().max()) for rows in heads.values()), default=0.0):
        say(f"the adapters' heads differ, by up to {apart:.2g}: their mean is the head of every checkpoint")
    check_ours(out := INPUTS / name, THETA, HEAD, LAYOUT, NAMES)
    with new_directory(out) as folder:
        # The mean of many equal numbers may be another one.
        means = {key: rows[0] if (rows == rows[0]).all() else rows.mean(0) for key, rows in heads.items()}
        save_zoo(folder, replace(want, theta=theta, head=means), steps=steps)
        write_json(folder / NAMES, [{"id": each.name, "description": each.description} for each in found])
    n, n_max = theta.shape[-2], params.collect.max_checkpoints
    say(f"{out}: {len(found)} checkpoints of {want.layout.K:,} weights, {found[0].name} to {found[-1].name}")
    if n < n_max:
        say(f"params.yaml: collect.max_checkpoints is {n_max}: set it, and normalize.n_checkpoints, to at most {n}")
    say(f"now set `zoo: {out}` in {task_path(name)}, and track {out} with `dvc add` or `git add`")


def checkpoints(source: Path, alpha: float) -> list[Found]:
    """The checkpoints of a source, oldest first, of which only a stacked file is read; docs/adapters.md lists sources.
    `alpha` is that of a stacked file that does not say it. Raises a UserError if it is nothing that can be imported."""
    if not source.exists():
        allowed = "a folder of adapters, a Trainer's folder, a safetensors of theta [N, K], or a .jsonl"
        raise UserError(f"{source}: no such source, allowed: {allowed}")
    if source.suffix == ".jsonl" and source.is_file():
        return _listed(source)
    if (stacked := source if source.is_file() else source / THETA).is_file():
        return _stacked(stacked, alpha)
    # A Trainer's folder holds the last state a second time, beside its checkpoints.
    steps = {path: int(path.name[11:]) for path in source.iterdir() if re.fullmatch(r"checkpoint-\d+", path.name)}
    found = [path for path in steps or source.iterdir() if any(map(is_adapter, (path, *path.glob("*"))))]
    if not found:
        raise UserError(f"{source}: no adapter in its folders, allowed: one adapter a folder, or checkpoint-N folders")
    found.sort(key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)])
    return [Found(path.name, steps.get(path, i), path) for i, path in enumerate(found, 1)]


def _listed(source: Path) -> list[Found]:
    """A line an adapter; its path starts at the list's folder."""
    found = []
    for number, line in enumerate(source.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            item = json.loads(line)
            file = as_spelt(source.parent / item["path"])
            found.append(Found(str(item["id"]), number, file, item.get("description")))
        except (ValueError, KeyError, TypeError, OSError, RecursionError):
            raise UserError(f"{source}: line {number}: allowed: {{id, description, path}} in JSON") from None
    return found


def _stacked(path: Path, alpha: float) -> list[Found]:
    """theta [N, K] with layout.json beside it, and head.safetensors where there is one, as a zoo folder has them."""
    layout, tensors = Layout.load(path.parent), read_tensors(path)
    theta = tensors.get("theta", torch.empty(0))
    if theta.ndim != 2 or theta.shape[1] != layout.K:
        raise UserError(f"{path}: theta: found {list(theta.shape)}, allowed: [N, {layout.K}], as {LAYOUT} says")
    head = read_tensors(path.parent / HEAD) if (path.parent / HEAD).is_file() else {}
    steps = tensors.get("steps", torch.arange(1, len(theta) + 1)).flatten().tolist()
    if len(steps) != len(theta):
        raise UserError(f"{path}: steps: found {len(steps)}, allowed: one of each of {len(theta)} checkpoints")
    alpha = as_alpha(in_header(path, "config").get("alpha", alpha), path)
    about = {"rank": min(layout.entries[0].shape), "alpha": alpha}
    found = [{key: tensor.float() for key, tensor in (unflatten(row, layout) | head).items()} for row in theta]
    return [Found(f"{path.name}[{i}]", steps[i], Adapter(each, about)) for i, each in enumerate(found)]


def check(adapter: Adapter, want: Zoo, base: Base) -> None:
    """Raise a UserError unless the adapter is one of the run's: its base, rank, alpha, modules, shapes and head."""
    if adapter.base:
        # By its last name: folders and hub ids may hold one model, and a package's name has more in it.
        one, other = Path(adapter.base).name.lower(), Path(base.name).name.lower()
        if one != other and not (base.source == "package" and one in other) and Path(adapter.base) != BASE:
            tail = "where it is the same model, name it so in adapter_config.json"
            raise UserError(f"base model: found {adapter.base}, allowed: {base.name} (params.yaml: base.name); {tail}")
    shapes = {entry.key: entry.shape for entry in want.layout.entries}
    shapes |= {key: tuple(tensor.shape) for key, tensor in want.head.items()}
    if odd := sorted(adapter.tensors.keys() - shapes.keys()):
        raise UserError(f"{odd[0]}: outside the run's modules (params.yaml: collect.target_modules), and no head")
    for key in ("rank", "alpha"):
        if (found := adapter.config[key]) != (allowed := want.config[key]):
            raise UserError(f"{key}: found {found:g}, allowed: {allowed:g} (params.yaml: collect.{key})")
    for key, shape in shapes.items():
        if (tensor := adapter.tensors.get(key)) is None:
            asks = "collect.target_modules" if ".lora_" in key else "base: the head, PEFT's modules_to_save"
            raise UserError(f"no tensor {key}, which the run needs (params.yaml: {asks})")
        if tuple(tensor.shape) != shape:
            raise UserError(f"{key}: found shape {list(tensor.shape)}, allowed: {list(shape)}")
        if not tensor.isfinite().all():
            raise UserError(f"{key}: holds values that are no numbers")
