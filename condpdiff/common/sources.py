"""What the sources of every domain's rows are read with: the user's own files, files of packages, sets of the hub."""

import errno
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from condpdiff.common import packages
from condpdiff.common.errors import UserError

SEPARATORS = {"csv": ",", "tsv": "\t"}
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def own_path(name: str, place: str, folder: bool = False) -> Path:
    """A file or folder of the user's; an absolute path is a warning.

    Args:
        place: the file and key that name it, for errors.

    Raises:
        UserError: it is not there.
    """
    path = Path(name)
    if not (path.is_dir() if folder else path.is_file()):
        kind = "folder" if folder else "file"
        raise UserError(f"{place}: no such {kind} {name!r} (a relative path starts at the root of the repository)")
    if path.is_absolute():
        message = "an absolute path: other machines may lack it; a path in the repository is safer"
        print(f"warning: {place}: {name} is {message}", file=sys.stderr)
    return path


def package_file(package: str, member: str, place: str) -> bytes:
    """A file of a package, as `packages.read_member` has it; its errors begin with `place`."""
    try:
        return packages.read_member(package, member)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


@contextmanager
def hub_data(dataset: str, config: str | None, where: str, otherwise: str) -> Iterator[tuple[Any, str]]:
    """The module `datasets`, and what to call the set in an error, for a block that reads a set of the hub.

    Raises:
        UserError: the block failed; says why in one line, and how to do `otherwise`.
    """
    import datasets  # the hub's libraries take seconds
    import huggingface_hub

    place = f"{where}: data.source: hub data set {dataset}" + (f" ({config})" if config else "")
    try:
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            # load_dataset tries each file six times: one question shows at once whether the hub answers.
            huggingface_hub.HfApi().dataset_info(dataset, timeout=10)
        yield datasets, place
    except UserError:
        raise
    except Exception as error:  # the hub's libraries raise dozens of kinds
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{place}: cannot be loaded with datasets.load_dataset ({reason}); {otherwise}") from None


def read_table(path: Path, header: list[str] | None, where: str) -> pd.DataFrame:
    """Read a csv, tsv, jsonl or parquet file; the suffix tells which.

    Values of csv and tsv stay strings: a text may be "NA" or "007". tsv knows no quotes, as in GLUE.

    Args:
        header: names of the columns, where no line of the file has them.

    Raises:
        UserError: unknown suffix, not UTF-8, truncated or malformed content.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{where}: found suffix {suffix!r}, allowed: {', '.join(SUFFIXES)}")
    if suffix == ".parquet":
        return _read_parquet(path, where)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 at byte {error.start}; allowed: UTF-8 text") from None
    return _parse_jsonl(text, where) if suffix == ".jsonl" else parse_table(text, suffix[1:], header, where)


def parse_table(text: str, form: str, header: list[str] | None, where: str) -> pd.DataFrame:
    """Parse csv or tsv into a frame of strings; a missing value is "".

    Raises:
        UserError: as `read_table`.
    """
    quoting: Literal[0, 3] = 3 if form == "tsv" else 0  # csv.QUOTE_NONE, csv.QUOTE_MINIMAL
    try:
        # The header line is taken as a row: with a longer row below it, pandas would make an index of column 1.
        frame = pd.read_csv(
            io.StringIO(text), sep=SEPARATORS[form], header=None, dtype=str, keep_default_na=False, quoting=quoting
        )
    except pd.errors.EmptyDataError:
        raise UserError(f"{where}: the file is empty") from None
    except pd.errors.ParserError as error:
        reason = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
        raise UserError(f"{where}: not readable as {form}: {reason}") from None
    if header is None:
        header, frame = frame.iloc[0].tolist(), frame.iloc[1:]
    if len(header) != frame.shape[1]:
        raise UserError(f"{where}: found {frame.shape[1]} columns, allowed: {len(header)} as in data.source.header")
    return frame.set_axis(pd.Index(header, dtype=object), axis=1).reset_index(drop=True)


def _parse_jsonl(text: str, where: str) -> pd.DataFrame:
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: line {number}: not valid JSON: {error.msg}") from None
        if not isinstance(record, dict):
            raise UserError(f"{where}: line {number}: found {type(record).__name__}, allowed: one object a line")
        records.append(record)
    if not records:
        raise UserError(f"{where}: the file is empty")
    return pd.DataFrame(records, dtype=object)


def _read_parquet(path: Path, where: str) -> pd.DataFrame:
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: not readable as parquet: {reason}") from None
