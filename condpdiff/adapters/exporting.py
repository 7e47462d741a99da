"""`condpdiff export`: a LoRA of a run, or of a folder, as files that other libraries load.

Every export is loaded again by the library that it is for before it takes its name: no key is left over or missing.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condpdiff.adapters.formats import LABELS, PEFT_FILE, Adapter, read_adapter, write_diffusers, write_kohya
from condpdiff.common.errors import UserError
from condpdiff.common.files import new_directory, read_tensors, write_json
from condpdiff.common.pretrained import cannot_load, loads_as
from condpdiff.common.settings import domain, section
from condpdiff.domain import module
from condpdiff.evaluate.controls import soup
from condpdiff.zoo.adapters import export_adapter
from condpdiff.zoo.checkpoints import Zoo, load_zoo
from condpdiff.zoo.layout import Entry, Layout, flatten, unflatten
from condpdiff.zoo.placed import PREFIX
from condpdiff.zoo.settings import Normalize

DATA = Path("data")
FORMATS = {"text": ("peft", "merged"), "style": ("peft", "diffusers", "kohya")}
CARD = """---
base_model: {base}
library_name: peft
tags: [lora, condpdiff]
---
# {task}: {what}

Rank {rank}, alpha {alpha:g}.
"""


def export(what: str, out: Path, form: str, between: str | None, at: float) -> None:
    """Write a LoRA to the new folder `out`, whole or not at all.

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
    adapter, said = load(what)
    if between is not None:
        other, more = load(between)
        adapter, said = interpolated(adapter, other, at), f"{at:g} of the way from {said} to {more}"
    check: Callable[[Adapter, Path], None] = _check_text if kind == "text" else _check_style
    with new_directory(out) as folder:
        if form == "merged":
            _write_merged(adapter, folder)
        elif form == "peft":
            _write_peft(adapter, folder, out, said, generated=what.startswith("sample:") and between is None)
            check(adapter, folder)
        else:
            (write_diffusers if form == "diffusers" else write_kohya)(adapter, folder)
            _check_one_file(adapter, folder, diffusers=form == "diffusers")
        if adapter.labels and form != "merged":
            write_json(folder / LABELS, _label_maps(adapter.labels))


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
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--push-to-hub {repository}: {first}; {out} is written (log in with `hf auth login`)"
        ) from None
    return str(address)


# --- what is exported ---------------------------------------------------------------------------


def load(what: str) -> tuple[Adapter, str]:
    """A LoRA of the run or of a folder, and what it is in a few words."""
    kind, _, rest = what.partition(":")
    if kind not in ("sample", "checkpoint", "soup") or not rest:
        if not Path(what).exists():
            allowed = "sample:TASK/3, checkpoint:TASK/150, soup:TASK, or the path of an adapter"
            raise UserError(f"{what}: no such adapter, allowed: {allowed}")
        return read_adapter(Path(what)), Path(what).name
    name, number = (rest, "") if kind == "soup" else rest.rpartition("/")[::2]
    n = section("normalize", Normalize).n_checkpoints if kind == "soup" else None
    zoo = load_zoo(DATA / "zoo" / name, n)
    if kind == "soup":
        return _of_run(soup(zoo.theta)[0], zoo, name), f"the average of the last {n} checkpoints"
    rows = zoo.theta if kind == "checkpoint" else read_tensors(DATA / "samples" / f"{name}.safetensors")["theta"]
    if rows.ndim != 2:
        raise UserError(f"{what}: of a family, allowed: the path data/adapters/<family>/<member>")
    if not number.isdigit() or not 1 <= int(number) <= len(rows):
        raise UserError(f"{what}: found number {number!r}, allowed: 1 to {len(rows)}")
    return _of_run(rows[int(number) - 1], zoo, name), f"{kind} {number}"


def _of_run(theta: Tensor, zoo: Zoo, name: str) -> Adapter:
    task = module("task").load_task(name.partition("/")[0])
    about = {**zoo.config, "task_type": module("models").TASK_TYPE}
    tensors = {**unflatten(theta, zoo.layout), **zoo.head}
    labels = getattr(task.data, "labels", None)
    return Adapter(tensors, zoo.config["rank"], zoo.config["alpha"], loads_as(DATA / "base"), about, labels)


def interpolated(one: Adapter, other: Adapter, at: float) -> Adapter:
    """The matrices A and B, and the heads, at `at` from 0 (one) to 1 (other).

    Raises:
        UserError: their bases, ranks, alphas, labels, tensors or shapes differ.
    """
    shapes = [{key: tuple(tensor.shape) for key, tensor in each.tensors.items()} for each in (one, other)]
    pairs = {key: (getattr(one, key), getattr(other, key)) for key in ("base", "rank", "alpha", "labels")}
    for key, (first, second) in {**pairs, "tensors": shapes}.items():
        if first != second:
            found = f"found {first} and {second}" if key != "tensors" else "found other keys or shapes"
            raise UserError(f"--between: {key}: {found}, allowed: two adapters that differ in their values alone")
    return replace(one, tensors={key: torch.lerp(t, other.tensors[key], at) for key, t in one.tensors.items()})


# --- files --------------------------------------------------------------------------------------


def _write_peft(adapter: Adapter, folder: Path, out: Path, said: str, generated: bool) -> None:
    """As merge-eval writes the winner; the card of what was not generated says what it is."""
    entries, offset = [], 0
    for key, tensor in adapter.lora.items():
        entries.append(Entry(key, tuple(tensor.shape), offset, -1, ""))
        offset += tensor.numel()
    layout = Layout(tuple(entries))
    card = module("models").CARD if generated else CARD.replace("{what}", said)
    about = {"task": out.name, **adapter.config, "rank": adapter.rank, "alpha": adapter.alpha}
    zoo = Zoo(torch.empty(0, layout.K), layout, adapter.head, about)
    task_type = adapter.config.get("task_type")
    export_adapter(folder, flatten(adapter.tensors, layout), zoo, adapter.base or "", str(out), task_type, card)


def _write_merged(adapter: Adapter, folder: Path) -> None:
    """The base with the LoRA merged into it and its head, as transformers writes a model, with the tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with tempfile.TemporaryDirectory() as scratch:
        _write_peft(adapter, Path(scratch), folder, "", generated=False)
        model = _check_text(adapter, Path(scratch)).merge_and_unload()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(_base(adapter)).save_pretrained(folder)
    again, found = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    wrong = [key for keys in found.values() for key in keys]
    _same(model.state_dict(), again.state_dict(), wrong)


def _label_maps(labels: list[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}


# --- loaded again -------------------------------------------------------------------------------


def _check_text(adapter: Adapter, folder: Path) -> Any:
    """The PEFT model that the folder gives on its base."""
    from transformers import AutoModelForSequenceClassification

    last = [t for key, t in adapter.head.items() if key.endswith(("classifier.weight", "out_proj.weight"))]
    if not last:
        raise UserError("the adapter has no classification head; allowed: adapters of sequence classifiers")
    labels = _label_maps(adapter.labels) if adapter.labels else {"num_labels": last[-1].shape[0]}
    try:
        model = AutoModelForSequenceClassification.from_pretrained(_base(adapter), dtype=torch.float32, **labels)
    except (OSError, ValueError) as error:
        raise cannot_load("export", f"base model {adapter.base!r}", error, "run `dvc repro prepare-base`") from None
    return _check_peft(model, folder)


def _check_style(adapter: Adapter, folder: Path) -> Any:
    from condpdiff.style.models import load_transformer

    return _check_peft(load_transformer(Path(_base(adapter))), folder)


def _check_peft(model: Any, folder: Path) -> Any:
    from peft import PeftModel, get_peft_model_state_dict

    try:
        loaded = PeftModel.from_pretrained(model, folder).eval()
    except (KeyError, RuntimeError, ValueError) as error:
        raise cannot_load("export", "the adapter", error, "is its base the right one?") from None
    _same(read_tensors(folder / PEFT_FILE), get_peft_model_state_dict(loaded))
    return loaded


def _check_one_file(adapter: Adapter, folder: Path, diffusers: bool) -> None:
    """Read it as an import does, and, of diffusers' keys, by its own loader into the base's transformer."""
    again = read_adapter(folder)
    _same(adapter.lora, again.tensors)
    if (again.rank, again.alpha) != (adapter.rank, adapter.alpha):
        raise UserError(f"export: loaded again, rank and alpha are {again.rank}, {again.alpha:g}")
    if diffusers:
        from diffusers.loaders.peft import PeftAdapterMixin
        from peft import get_peft_model_state_dict

        from condpdiff.style.models import load_transformer

        model: Any = load_transformer(Path(_base(adapter)))
        # diffusers has given PixArt no loader of LoRAs; its own mixin is all that one takes.
        model.__class__ = type("PixArt", (PeftAdapterMixin, type(model)), {})
        model.load_lora_adapter(folder, prefix="transformer", adapter_name="again", use_safetensors=True)
        found = get_peft_model_state_dict(model, adapter_name="again")
        _same(adapter.lora, {PREFIX + key: tensor for key, tensor in found.items()})


def _base(adapter: Adapter) -> str:
    """The folder, or hub id, of the base; the run's own where it is that."""
    own = DATA / "base"
    return str(own) if own.is_dir() and adapter.base in (loads_as(own), None) else str(adapter.base)


def _same(written: Mapping[str, Tensor], found: Mapping[str, Tensor], wrong: list[str] | None = None) -> None:
    """Raise a UserError unless all keys and values are there again, and no others."""
    wrong = (wrong or []) + sorted(written.keys() ^ found.keys())
    wrong += [key for key in written.keys() & found.keys() if not torch.equal(written[key].cpu(), found[key].cpu())]
    if wrong:
        raise UserError(f"export: loaded again, {len(wrong)} tensors are missing, left over or changed: {wrong[0]}")
