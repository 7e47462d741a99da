"""`condpdiff export`: a LoRA of a run, or of a folder, as files that other libraries load.

Every export is loaded again by the library that it is for before it takes its name: no key is left over or missing.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condpdiff.adapters.formats import PEFT_FILE, Adapter, head_width, read_adapter, write_diffusers, write_kohya
from condpdiff.common.errors import UserError, first_line
from condpdiff.common.files import new_directory, read_tensors
from condpdiff.common.pretrained import cannot_load, loads_as
from condpdiff.common.settings import domain, section
from condpdiff.common.task import grouped
from condpdiff.domain import module
from condpdiff.evaluate.arms import soup
from condpdiff.zoo.adapters import card, write_adapter
from condpdiff.zoo.checkpoints import load_zoo, unflatten
from condpdiff.zoo.placed import PREFIX
from condpdiff.zoo.settings import Normalize

DATA = Path("data")
FORMATS = {"text": ("peft", "merged"), "style": ("peft", "diffusers", "kohya")}
WRITERS = {"diffusers": write_diffusers, "kohya": write_kohya}


def export(what: str, out: Path, form: str, between: str | None, at: float) -> None:
    """Write the LoRA `what` to the new folder `out`, whole or not at all, with the names of its classes if it has them.

    With `between` it is (1 - at) times the first one's weights and `at` times that one's. Raises a UserError if one
    can't be had, the two don't go together, or what is loaded again is something else.
    """
    if form not in (allowed := FORMATS[kind := domain()]):
        raise UserError(f"--format: found {form!r}, allowed: {', '.join(allowed)} (domain: {kind})")
    if out.exists():
        raise UserError(f"{out}: is there already, allowed: a new folder")
    models: Any = module("models")  # silences what libraries say of a head that is loaded after the base
    adapter, said = load(what)
    if between is not None:
        other, more = load(between)
        for key, its in _described(other).items():
            if its != _described(adapter)[key]:
                raise UserError(f"--between: the two have other {key}, allowed: two that differ in their values alone")
        mixed = {key: torch.lerp(tensor, other.tensors[key], at) for key, tensor in adapter.tensors.items()}
        adapter, said = replace(adapter, tensors=mixed), f"{at:g} of the way from {said} to {more}"
    # The base is the run's own where it is that, or where a file names none.
    run = loads_as(DATA / "base") if (DATA / "base").is_dir() else ""
    named, config, labels = adapter.base or run, adapter.config, adapter.labels or []
    base = DATA / "base" if named == run else Path(named)
    with new_directory(out) as folder, tempfile.TemporaryDirectory() as scratch:
        if form in WRITERS:
            WRITERS[form](adapter, folder)
            again = read_adapter(folder)
            changed = [key for key in ("rank", "alpha") if config[key] != again.config[key]]
            _same(adapter.matrices(PREFIX), again.tensors, *changed)
        where = folder if form == "peft" else Path(scratch)
        write_adapter(where, adapter.tensors, config, named, card(config, named, out, [f"{said}."], labels), labels)
        loaded = _loaded(adapter, base, kind, where)
        if form == "merged":
            plain = loaded.merge_and_unload()
            plain.save_pretrained(folder)
            models.load_tokenizer(base).save_pretrained(folder)
            again, info = type(plain).from_pretrained(folder, output_loading_info=True)
            _same(plain.state_dict(), again.state_dict(), *[key for keys in info.values() for key in keys])


def push(out: Path, repository: str) -> str:
    """Upload a folder with huggingface_hub's own login, and give its address; raises a UserError if the hub refuses."""
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
        if Path(what).exists():
            return read_adapter(Path(what)), Path(what).name
        allowed = "sample:TASK/3, checkpoint:TASK/150, soup:TASK, or the path of an adapter"
        raise UserError(f"{what}: no such adapter, allowed: {allowed}")
    name, _, number = (rest, "", "1") if kind == "soup" else rest.rpartition("/")
    n = section("normalize", Normalize).n_checkpoints if kind == "soup" else None
    zoo = load_zoo(DATA / "zoo" / name, n)
    rows, said = zoo.theta, f"{kind} {number} of `{name}`"
    family, _, member = name.partition("/")
    if kind == "soup":
        rows, said = soup(rows), f"the average of the last {n} checkpoints of `{name}`"
    elif kind == "sample":
        said += ", sampled by Cond P-Diff"
        rows = read_tensors(DATA / "samples" / f"{family}.safetensors")["theta"]
        if member:
            made = grouped("unseen", "tuning").get(family, [])
            if name not in made:
                raise UserError(f"{what}: no samples of {name}, allowed: {', '.join(made)}")
            rows = rows[made.index(name)]
    if not number.isdigit() or not 1 <= int(number) <= len(rows):
        raise UserError(f"{what}: found number {number!r}, allowed: 1 to {len(rows)}")
    tensors = unflatten(rows[int(number) - 1], zoo.layout) | zoo.head
    labels = getattr(module("task").load_task(family).data, "labels", None)
    return Adapter(tensors, zoo.config, loads_as(DATA / "base"), labels), said


def _described(adapter: Adapter) -> dict[str, Any]:
    """What two LoRAs with a third one between them have alike."""
    alike = {"base": adapter.base, "rank": adapter.config["rank"], "alpha": adapter.config["alpha"]}
    return alike | {"labels": adapter.labels, "tensors or shapes": {k: t.shape for k, t in adapter.tensors.items()}}


def _loaded(adapter: Adapter, base: Path, kind: str, folder: Path) -> Any:
    """The PEFT model that a folder gives on its base."""
    from peft import PeftModel, get_peft_model_state_dict

    models: Any = module("models")
    try:
        if kind == "style":
            model = models.load_transformer(base)
        elif adapter.config["task_type"] == "FEATURE_EXTRACTION":  # of a family
            model = module("families.losses").load_base(base)
        else:
            outputs = 0 if adapter.config["task_type"] == "CAUSAL_LM" else head_width(adapter.tensors) or 2
            model, _ = models.load_model(base, outputs)
        if adapter.labels:
            model.config.id2label = dict(enumerate(adapter.labels))
            model.config.label2id = {label: i for i, label in enumerate(adapter.labels)}
        loaded = PeftModel.from_pretrained(model, folder).eval()
    except (KeyError, OSError, RuntimeError, ValueError) as error:
        raise cannot_load("export", f"the adapter on base model '{base}'", error, "allowed: its own base") from None
    _same(read_tensors(folder / PEFT_FILE), get_peft_model_state_dict(loaded))
    return loaded


def _same(written: Mapping[str, Tensor], found: Mapping[str, Tensor], *wrong: str) -> None:
    """Raise a UserError unless all keys and values are there again, and no others."""
    changed = [key for key in written.keys() & found.keys() if not torch.equal(written[key].cpu(), found[key].cpu())]
    if wrong := (*wrong, *sorted(written.keys() ^ found.keys()), *sorted(changed)):
        raise UserError(f"export: loaded again, {len(wrong)} tensors are missing, left over or changed: {wrong[0]}")
