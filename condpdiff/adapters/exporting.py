"""`condpdiff export`: a LoRA of a run, or of a folder, as files that other libraries load.

Every export is loaded again by the library that it is for before it takes its name: no key is left over or missing.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condpdiff.adapters.formats import PEFT_FILE, Adapter, read_adapter, write_diffusers, write_kohya
from condpdiff.common.errors import UserError, first_line
from condpdiff.common.files import new_directory, read_json, read_tensors, write_json
from condpdiff.common.pretrained import cannot_load, loads_as
from condpdiff.common.settings import domain, section
from condpdiff.common.task import grouped
from condpdiff.domain import module
from condpdiff.evaluate.controls import soup
from condpdiff.zoo.adapters import LABELS, card, write_adapter
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.layout import unflatten
from condpdiff.zoo.settings import Normalize

DATA = Path("data")
FORMATS = {"text": ("peft", "merged"), "style": ("peft", "diffusers", "kohya")}
WRITERS = {"diffusers": write_diffusers, "kohya": write_kohya}


def export(what: str, out: Path, form: str, between: str | None, at: float) -> None:
    """Write a LoRA to the new folder `out`, whole or not at all, with the names of its classes where it has them.

    Args:
        what: `sample:TASK/3`, `checkpoint:TASK/150` (both count from 1), `soup:TASK`, or the path of an adapter.
        form: peft, diffusers, kohya, or merged: a plain model folder of transformers.
        between: a second one, as `what`; the LoRA is the first one's weights (1 - at) and the second one's at.

    Raises:
        UserError: there is no such LoRA; the two differ in more than their values; the format is not for such models;
            `out` is there already; loaded again, it is not what was written.
    """
    if form not in (allowed := FORMATS[kind := domain()]):
        raise UserError(f"--format: found {form!r}, allowed: {', '.join(allowed)} (domain: {kind})")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: is there already, allowed: a new folder")
    module("models")  # silences what libraries say of a head that is loaded after the base
    adapter, said = load(what)
    if between is not None:
        other, more = load(between)
        adapter = interpolated(adapter, other, at)
        said = f"{at:g} of the way from {said} to {more}"
    labels = adapter.labels or []
    about = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    with new_directory(out) as folder, tempfile.TemporaryDirectory() as scratch:
        if form in WRITERS:
            WRITERS[form](adapter, folder)
            again, scale = read_adapter(folder), [adapter.rank, adapter.alpha]
            _same(adapter.part(lora=True), again.tensors, *["alpha"] * (scale != [again.rank, again.alpha]))
        where = folder if form == "peft" else Path(scratch)
        settings = adapter.config | {"rank": adapter.rank, "alpha": adapter.alpha}
        named, base = _base(adapter)
        write_adapter(where, adapter.tensors, settings, named, card(settings, named, out, [f"{said}."], labels), labels)
        loaded = _loaded(adapter, base, about if labels else {}, kind, where)
        if form == "merged":
            _write_merged(loaded.merge_and_unload(), base, folder)
        elif form in WRITERS and labels:
            write_json(folder / LABELS, dict(enumerate(labels)))


def push(out: Path, repository: str) -> str:
    """Upload a folder to the hub with huggingface_hub's own login, and give its address.

    Raises:
        UserError: the hub can't be reached, or refuses; the folder stays.
    """
    from huggingface_hub import HfApi

    try:
        address = HfApi().create_repo(repository, exist_ok=True)
        HfApi().upload_folder(repo_id=address.repo_id, folder_path=out)
    except Exception as error:  # of its client, of the network below, of the name: all are told in one line
        tail = f"{out} is written (to log in: `hf auth login`)"
        raise UserError(f"--push-to-hub {repository}: {first_line(error)}; {tail}") from None
    return str(address)


def load(what: str) -> tuple[Adapter, str]:
    """A LoRA of the run or of a folder, and what it is in a few words."""
    kind, _, rest = what.partition(":")
    if kind not in ("sample", "checkpoint", "soup") or not rest:
        if not Path(what).exists():
            allowed = "sample:TASK/3, checkpoint:TASK/150, soup:TASK, or the path of an adapter"
            raise UserError(f"{what}: no such adapter, allowed: {allowed}")
        return read_adapter(Path(what)), Path(what).name
    name, _, number = (rest, "", "1") if kind == "soup" else rest.rpartition("/")
    n = section("normalize", Normalize).n_checkpoints if kind == "soup" else None
    zoo = load_zoo(DATA / "zoo" / name, n)
    rows, said = zoo.theta, f"{kind} {number} of `{name}`" + ", sampled by Cond P-Diff" * (kind == "sample")
    if kind == "soup":
        rows, said = soup(zoo.theta), f"the average of the last {n} checkpoints of `{name}`"
    elif kind == "sample":
        family, _, member = name.partition("/")
        rows = read_tensors(DATA / "samples" / f"{family}.safetensors")["theta"]
        if member:
            made = grouped("unseen", "tuning").get(family, [])
            if name not in made:
                raise UserError(f"{what}: no samples of {name}, allowed: {', '.join(made)}")
            rows = rows[made.index(name)]
    if not number.isdigit() or not 1 <= int(number) <= len(rows):
        raise UserError(f"{what}: found number {number!r}, allowed: 1 to {len(rows)}")
    task = module("task").load_task(name.partition("/")[0])
    tensors = unflatten(rows[int(number) - 1], zoo.layout) | zoo.head
    labels = getattr(task.data, "labels", None)
    return Adapter(tensors, zoo.config["rank"], zoo.config["alpha"], loads_as(DATA / "base"), zoo.config, labels), said


def interpolated(one: Adapter, other: Adapter, at: float) -> Adapter:
    """The matrices A and B, and the heads, at `at` from 0 (one) to 1 (other).

    Raises:
        UserError: their bases, ranks, alphas, labels, tensors or shapes differ.
    """
    shapes = [{key: tensor.shape for key, tensor in each.tensors.items()} for each in (one, other)]
    same = {key: getattr(one, key) == getattr(other, key) for key in ("base", "rank", "alpha", "labels")}
    for key, holds in {**same, "tensors or shapes": shapes[0] == shapes[1]}.items():
        if not holds:
            raise UserError(f"--between: the two have other {key}, allowed: two that differ in their values alone")
    return replace(one, tensors={key: torch.lerp(t, other.tensors[key], at) for key, t in one.tensors.items()})


def _base(adapter: Adapter) -> tuple[str, str]:
    """What the base model is called, and where it is: the run's own where it is that, or where a file names none."""
    own = DATA / "base"
    run = loads_as(own) if own.is_dir() else ""
    named = adapter.base or run
    return named, str(own) if named == run else named


def _loaded(adapter: Adapter, base: str, labels: Mapping[str, Any], kind: str, folder: Path) -> Any:
    """The PEFT model that a folder gives on its base."""
    from peft import PeftModel, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    how: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True}
    try:
        if kind == "style":
            model: Any = import_module("condpdiff.style.models").load_transformer(Path(base))
        elif read_json(folder / "adapter_config.json")["task_type"] == "CAUSAL_LM":
            model = AutoModelForCausalLM.from_pretrained(base, **how)
        else:
            ends = ("classifier.weight", "proj.weight", "score.weight")
            last = [tensor for key, tensor in adapter.part(lora=False).items() if key.endswith(ends)]
            outputs = labels or {"num_labels": len(last[-1]) if last else 2}
            model = AutoModelForSequenceClassification.from_pretrained(base, **how, **outputs)
        loaded = PeftModel.from_pretrained(model, folder).eval()
    except (KeyError, OSError, RuntimeError, ValueError) as error:
        raise cannot_load("export", f"the adapter on base model {base!r}", error, "allowed: its own base") from None
    _same(read_tensors(folder / PEFT_FILE), get_peft_model_state_dict(loaded))
    return loaded


def _write_merged(model: Any, base: str, folder: Path) -> None:
    """A plain model of transformers, with its base's tokenizer."""
    from transformers import AutoTokenizer

    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    again, found = type(model).from_pretrained(folder, output_loading_info=True)
    _same(model.state_dict(), again.state_dict(), *[key for keys in found.values() for key in keys])


def _same(written: Mapping[str, Tensor], found: Mapping[str, Tensor], *wrong: str) -> None:
    """Raise a UserError unless all keys and values are there again, and no others."""
    changed = [key for key in written.keys() & found.keys() if not torch.equal(written[key].cpu(), found[key].cpu())]
    if wrong := (*wrong, *sorted(written.keys() ^ found.keys()), *sorted(changed)):
        raise UserError(f"export: loaded again, {len(wrong)} tensors are missing, left over or changed: {wrong[0]}")
