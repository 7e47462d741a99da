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
TOKENS = 25
"""Of a row, where none is prepared yet: the mean of the default run's tasks."""
CHARACTERS = 4
"""Of a token of English, about."""


def model_config(base: Base, domain: str) -> tuple[dict[str, Any] | None, str]:
    """The base model's architecture, and where its numbers come from: its own file, else configs/models/."""
    file = CONFIG[domain]
    if base.source == "local" and (path := Path(base.name) / file).is_file():
        return read_json(path), str(path)
    if base.source == "package" and is_cached(base.name) and PACKAGES[base.name].model:
        member = f"{PACKAGES[base.name].model}/{file}"
        return json.loads(read_member(base.name, member)), f"the package's {member}"
    if base.source == "hub" and (folder := hub_folder("models", base.name)).is_dir():
        for path in sorted(folder.glob(f"snapshots/*/{file}")):
            return read_json(path), str(path)
    path = published(base)
    if path.is_file():
        parts = read_yaml(path)
        return parts.get("transformer", parts), str(path)
    return None, f"unknown until the model is here (or {path} gives its architecture)"


def published(base: Base) -> Path:
    """The file of configs/models/ that gives a base model's architecture, where there is one."""
    return MODELS / f"{Path(base.name).name.lower()}.yaml"


def model_input(source: str, name: str) -> str:
    """Whether a model is here."""
    if source == "trained":
        path = MODELS / f"{name}.yaml"
        return f"trained here, by {path}" if path.is_file() else f"no such file: {path}"
    if source != "local":
        return input_state(source, name, "models")
    files = ("config.json", "model_index.json", "transformer/config.json")
    return "there" if any((Path(name) / file).is_file() for file in files) else "no such directory with a config.json"


def encoder_input(condition: Condition) -> str:
    """Whether the condition encoder is here; one-hot and learnable conditions need none.

    Raises:
        UserError: `condition.model` names no kind of source.
    """
    if condition.kind in UNDESCRIBED:
        return "not needed"
    source, _, name = condition.model.partition(":")
    if condition.encoder == "clip" and source != "local-dir":
        return "open_clip downloads it if its cache has not got it"
    if condition.encoder == "clip":
        return input_state("folder", name)
    if source == "torchvision":
        return "torchvision downloads it if its cache has not got it"
    if source == "local-file":
        return input_state("file", name)
    if source not in ("package", "hub", "local-dir"):
        raise UserError(
            f"params.yaml: condition.model: found {condition.model!r}, "
            "allowed: package:, hub:, local-dir:, local-file: or torchvision:"
        )
    return model_input(source.removesuffix("-dir"), name)


def input_state(kind: str, name: str, of: str = "datasets") -> str:
    """Whether a package | hub | file | folder is here; `of` says what of the hub's: models or datasets."""
    if kind == "package" and name not in PACKAGES:
        return f"unknown package; allowed: {', '.join(sorted(PACKAGES))}"
    if kind == "package":
        return "cached" if is_cached(name) else "not cached: pip will download it"
    if kind == "hub":
        return "in the hub's cache" if hub_folder(of, name).is_dir() else "not cached: needs the hub"
    there = Path(name).is_file() if kind == "file" else Path(name).is_dir()
    return "there" if there else f"no such {'file' if kind == 'file' else 'directory'}: {name}"


def prepared_rows(folder: Path, limits: list[int]) -> list[int] | None:
    """Rows of train and validation that prepare-data has written, if it has and they are within a run's `limits`."""
    if not folder.is_dir():
        return None
    from pyarrow import ArrowException, parquet

    try:
        rows = [parquet.read_metadata(folder / f"{split}.parquet").num_rows for split in ("train", "validation")]
    except (OSError, ArrowException):
        return None
    return rows if rows[0] <= limits[0] and rows[1] <= limits[1] else None


def row_tokens(folder: Path) -> float:
    """Mean tokens of a text task's prepared rows, by their characters."""
    if not folder.is_dir():
        return TOKENS
    from pyarrow import ArrowException, compute, parquet

    try:
        table = parquet.read_table(folder / "train.parquet", columns=["text", "text_pair"])
    except (OSError, ArrowException):
        return TOKENS
    means = [compute.mean(compute.utf8_length(table[name])).as_py() or 0 for name in table.column_names]
    return sum(means) / CHARACTERS + 2  # [CLS], [SEP]


def is_cached(package: str) -> bool:
    try:
        return package in PACKAGES and (cache_folder() / PACKAGES[package].archive).is_file()
    except UserError:  # an unwritable cache folder
        return False


def hub_folder(kind: str, name: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}"
