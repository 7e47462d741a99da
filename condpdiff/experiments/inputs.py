"""Where a run's input is: in a cache, in a folder, or still to be downloaded. Looks, and downloads nothing."""

import json
from pathlib import Path
from typing import Any

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_json
from condpdiff.common.packages import PACKAGES, cache_folder, read_member
from condpdiff.common.settings import read_yaml
from condpdiff.common.task import Base
from condpdiff.diffusion.settings import UNDESCRIBED, Condition

MODELS = Path("configs/models")
CONFIG = {"text": "config.json", "style": "transformer/config.json"}
"""Where a model's folder has its architecture."""
CHARACTERS = 4
"""Of a token of English, about."""
ENCODERS = {x: x for x in ("package", "hub", "torchvision")} | {"local-dir": "local", "local-file": "file"}
"""What `condition.model` begins with -> kind of `input_state`."""


def model_config(base: Base, domain: str) -> tuple[dict[str, Any] | None, str]:
    """The base model's architecture, and where its numbers come from: its own file, else configs/models/."""
    file = CONFIG[domain]
    if base.source == "package" and is_cached(base.name) and (folder := PACKAGES[base.name].model):
        return json.loads(read_member(base.name, f"{folder}/{file}")), f"the package's {folder}/{file}"
    own = [Path(base.name) / file] if base.source == "local" else []
    own = sorted(hub_folder("hub", base.name).glob(f"snapshots/*/{file}")) if base.source == "hub" else own
    for path in filter(Path.is_file, own):
        return read_json(path), str(path)
    path = published(base)
    if path.is_file():
        parts = read_yaml(path)
        return parts.get("transformer", parts), str(path)
    return None, f"unknown until the model is here (or {path} gives its architecture)"


def published(base: Base) -> Path:
    """The file of configs/models/ that gives a base model's architecture, where there is one."""
    return MODELS / f"{Path(base.name).name.lower()}.yaml"


def encoder_input(condition: Condition) -> str:
    """Whether the condition encoder is here; one-hot and learnable conditions need none.

    Raises:
        UserError: `condition.model` names no kind of source.
    """
    source, _, name = condition.model.partition(":")
    if condition.kind in UNDESCRIBED:
        return "not needed"
    if condition.encoder == "clip":
        return input_state("folder" if source == "local-dir" else "open_clip", name)
    if source not in ENCODERS:
        allowed = ", ".join(f"{kind}:" for kind in ENCODERS)
        raise UserError(f"params.yaml: condition.model: found {condition.model!r}, allowed: {allowed}")
    return input_state(ENCODERS[source], name)


def input_state(kind: str, name: str) -> str:
    """Whether an input is here.

    Args:
        kind: package | hub (a model) | dataset (of the hub) | trained (here) | local (a model's folder) | folder |
            file, or the library that downloads it.
    """
    path = Path(name)
    if kind == "package" and name not in PACKAGES:
        return f"unknown package; allowed: {', '.join(sorted(PACKAGES))}"
    if kind == "package":
        return "cached" if is_cached(name) else "not cached: pip will download it"
    if kind in ("hub", "dataset"):
        return "in the hub's cache" if hub_folder(kind, name).is_dir() else "not cached: needs the hub"
    if kind == "trained":
        file = MODELS / f"{name}.yaml"
        return f"trained here, by {file}" if file.is_file() else f"no such file: {file}"
    if kind == "local":
        files = ("config.json", "model_index.json", CONFIG["style"])
        return "there" if any((path / f).is_file() for f in files) else "no such directory with a config.json"
    if kind in ("file", "folder"):
        there = path.is_file() if kind == "file" else path.is_dir()
        return "there" if there else f"no such {'file' if kind == 'file' else 'directory'}: {name}"
    return f"{kind} downloads it if its cache has not got it"


def prepared(folder: Path, limits: list[int]) -> tuple[list[int], float] | None:
    """What prepare-data has written, if it has and it is within a run's `limits`.

    Returns:
        Rows of train and validation; tokens of a row of text on the mean, by its characters.
    """
    if not folder.is_dir():
        return None
    from pyarrow import ArrowException, compute, parquet

    try:
        files = [parquet.ParquetFile(folder / f"{split}.parquet") for split in ("train", "validation")]
        texts = files[1].read([c for c in ("text", "text_pair") if c in files[1].schema_arrow.names])
    except (OSError, ArrowException):
        return None
    rows = [file.metadata.num_rows for file in files]
    characters = sum(compute.mean(compute.utf8_length(column)).as_py() or 0 for column in texts.columns)
    within = all(found <= limit for found, limit in zip(rows, limits, strict=True))
    return (rows, characters / CHARACTERS + 2) if within else None  # [CLS], [SEP]


def is_cached(package: str) -> bool:
    """Whether the package is here, so that pip has nothing to download."""
    try:
        return package in PACKAGES and (cache_folder() / PACKAGES[package].archive).is_file()
    except UserError:  # an unwritable cache folder
        return False


def hub_folder(kind: str, name: str) -> Path:
    """Where the hub's cache has a model (`hub`) or a `dataset`."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"{'models' if kind == 'hub' else 'datasets'}--{name.replace('/', '--')}"
