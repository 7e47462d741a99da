"""Reading and writing artifacts: whole or not at all, and the same bytes for the same content."""

import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from condpdiff.common.errors import UserError

if TYPE_CHECKING:  # half a second, which reading JSON need not wait for
    import pandas as pd


def as_spelt(path: Path) -> Path:
    """A path as its folders spell it: `é` is one character to some systems and two to others; as given where absent."""
    try:
        if path.exists() or path == path.parent:
            return path
    except OSError as error:  # a name too long, or a folder that may not be looked into
        raise UserError(f"{str(path)[:200]}: {error.strerror}") from None
    folder, wanted = as_spelt(path.parent), unicodedata.normalize("NFC", path.name)
    names = (found.name for found in folder.iterdir()) if folder.is_dir() else ()
    return folder / next((name for name in names if unicodedata.normalize("NFC", name) == wanted), path.name)


def own_path(name: str, place: str, folder: bool = False) -> Path:
    """A file or folder of the user's; an absolute path is a warning. Errors begin with `place`, its file and key.
    Raises UserError: it is not there."""
    path = as_spelt(Path(name))
    if not (path.is_dir() if folder else path.is_file()):
        kind = "folder" if folder else "file"
        raise UserError(f"{place}: no such {kind} {name!r} (a relative path starts at the root of the repository)")
    if path.is_absolute():
        message = "an absolute path: other machines may lack it; a path in the repository is safer"
        print(f"warning: {place}: {name} is {message}", file=sys.stderr)
    return path


def digest(path: Path, kind: str) -> str:
    """The hash of a file, by hashlib's name of it, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Give a temporary directory beside `path`; whole and on the disk, it takes the name `path`, or goes if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}."  # what a killed process left goes first
    for left in path.parent.glob(f"{glob.escape(prefix)}????????"):
        shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    try:
        yield partial
        for file in (each for each in partial.rglob("*") if each.is_file()):
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        partial.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_ours(path: Path, *names: str) -> None:
    """Raise a UserError unless a user's folder may be replaced whole: it is not there, or holds such names alone."""
    if others := sorted({each.name for each in path.iterdir()} - {*names}) if path.is_dir() else path.exists():
        found = others[0] if isinstance(others, list) else "a file"
        raise UserError(f"{path}: found {found}, which would be lost; allowed: a new folder")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that the bytes depend on the content alone."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. Raises UserError: the file is absent or not JSON."""
    try:
        value = json.loads(text := path.read_text(encoding="utf-8"))
        if "\\u" in text:  # half a surrogate pair, which no other file could hold
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None


def write_tensors(path: Path, tensors: Mapping[str, Any], config: Any = None) -> None:
    """Write a safetensors file; `config` travels inside it, as JSON under the metadata key `config`."""
    from safetensors.torch import save_file

    # One key only: safetensors keeps metadata in a hash map, whose order is random.
    metadata = None if config is None else {"config": json.dumps(config, sort_keys=True)}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata=metadata)
    path.chmod(0o644)  # safetensors creates files that the owner alone can read


def read_tensors(path: Path) -> dict[str, Any]:
    """Read every tensor of a safetensors file; a UserError if it is absent, truncated or no safetensors file."""
    with open_tensors(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def read_config(path: Path) -> Any:
    """The `config` that `write_tensors` put inside the file; a UserError as `read_tensors`, or if there is none."""
    with open_tensors(path) as file:
        said = (file.metadata() or {}).get("config", "")
    try:
        return json.loads(said)
    except (ValueError, RecursionError):
        says = "found no config in its header, allowed: JSON; remove it and run `dvc repro`"
        raise UserError(f"{path}: {says}") from None


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file, memory-mapped."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); remove it and run `dvc repro`") from None


def read_rows(folder: Path, split: str) -> "pd.DataFrame":
    """One split of a prepared task, `folder/<split>.parquet`; a UserError if it is absent or unreadable."""
    import pandas as pd

    path = folder / f"{split}.parquet"
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro` from prepare-data") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable parquet file ({error}); remove it and run `dvc repro`") from None
