"""Tables in files: csv, tsv and other text with separators, jsonl, parquet; each gives the same frame.

What can't be read with certainty is refused, with its line: a table read wrongly is noticed by nobody. So text goes
through Python's strict csv reader: pandas' own fills up short rows, and takes a quote that closes inside a text.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.common.task import Form

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".txt", ".data", ".label")
KEYS = "data.source."  # where the keys of a `Form` stand in a task's file
MENDS = f"; {KEYS}separator, quoting, escape and encoding say how a file is written"
FAULTS = {  # of the csv reader, by a part of what it says; {} is the line that it stopped in
    "new-line": "found a lone carriage return; allowed: one inside quotes alone",
    "unexpected end": "a quote opens and is never closed; allowed: two quotes for one inside a text",
    "expected after": "a quote opens and closes inside a text in line {}; allowed: two quotes for one inside a text",
}


def read_table(path: Path, where: str, form: Form | None = None) -> pd.DataFrame:
    """Read a csv, tsv, jsonl or parquet file, or other text with separators; the suffix tells which.

    Values of text files stay strings: a text may be "NA" or "007". tsv knows no quotes, as in GLUE, unless told.
    Args: where: what to call it in an error; form: how it is written; None where no key of a task file can say it.
    Raises UserError: unknown suffix, another encoding, truncated or malformed content.
    """
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix not in SUFFIXES:
        allowed = f"{', '.join(SUFFIXES)}, or one of these with .gz"
        raise UserError(f"{where}: found suffix {suffix!r}, allowed: {allowed}")
    content = path.read_bytes()
    if name.endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{where}: not readable as gzip: {error}") from None
    if suffix == ".parquet":
        return _read_parquet(content, where)
    text = _decode(content, where, form)
    return _parse_jsonl(text, where) if suffix == ".jsonl" else parse_table(text, suffix, where, form)


def parse_table(text: str, suffix: str, where: str, form: Form | None = None) -> pd.DataFrame:
    """Parse text with separators into a frame of strings; an empty value is "". Raises UserError: as `read_table`."""
    mends, form = "" if form is None else MENDS, form or Form()
    separator = form.separator or SEPARATORS.get(suffix)
    if separator is None and len(form.header or []) != 1:
        allowed = f"one for {suffix} (or a {KEYS}header of one column)"
        raise UserError(f"{where}: found no {KEYS}separator, allowed: {allowed}")
    quoted = (suffix == ".csv" or separator in (",", ";")) if form.quoting is None else form.quoting == "minimal"
    records = _records(text, separator, quoted, form, where, mends)
    header, as_in = form.header, f"{KEYS}header"
    if header is None:
        number, header = next(records, (0, []))
        as_in = f"line {number}"
        if not number:
            raise UserError(f"{where}: the file is empty")
    rows = []
    for number, row in records:
        if len(header) > 1 and len(row) == 1 and not row[0].strip():
            continue  # an empty line
        if len(row) != len(header):
            found = f"line {number}: found {len(row)} columns, allowed: {len(header)} as in {as_in}"
            raise UserError(f"{where}: {found}{mends}")
        rows.append(row)
    if not rows:
        raise UserError(f"{where}: the file has no rows")
    return pd.DataFrame(rows, columns=pd.Index(header, dtype=object), dtype=object)


def is_missing(value: Any) -> bool:
    """Whether a file has nothing there."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def shown(value: Any) -> str:
    """A value of no use, in an error: its kind, and its beginning."""
    kind = {"dict": "an object", "list": "a list", "tuple": "a list", "ndarray": "a list", "bool": "a boolean"}
    text = " ".join(repr(value.tolist() if isinstance(value, np.ndarray) else value).split())
    return f"{kind.get(type(value).__name__, type(value).__name__)} {text if len(text) <= 60 else text[:57] + '...'}"


def _decode(content: bytes, where: str, form: Form | None) -> str:
    """By the byte order mark, else by the form."""
    looks, mends = json.detect_encoding(content), "" if form is None else MENDS
    marked = looks in ("utf-8-sig", "utf-16", "utf-32")  # else by which bytes are 0
    encoding = looks if marked else (form and form.encoding) or "utf-8"
    if encoding == "utf-8" != looks:
        raise UserError(f"{where}: line 1: bytes are 0, as in {looks.upper()}; allowed: UTF-8{mends}")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = f"byte 0x{content[error.start]:02x} is not {encoding.upper()}"
        raise UserError(f"{where}: line {line}: {found}; allowed: UTF-8{mends}") from None
    if "\n" not in text.rstrip("\r\n"):  # as old Macs end lines
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def _records(
    text: str, separator: str | None, quoted: bool, form: Form, where: str, mends: str
) -> Iterator[tuple[int, list[str]]]:
    """Each row's fields, and the line that it begins in, from 1."""
    if separator is None or (separator == " " and not quoted):  # the last column has the rest of a line
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, line.strip().split(separator, len(form.header or []) - 1)
        return
    csv.field_size_limit(2**31 - 1)
    lines = io.StringIO(text, newline="\n")  # a lone CR ends no line
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter=separator, quoting=quoting, escapechar=form.escape, strict=True)
    start = 1
    try:
        for row in reader:
            if row:
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        fault = next((says for part, says in FAULTS.items() if part in str(error)), str(error))
        raise UserError(f"{where}: line {start}: {fault.format(reader.line_num)}{mends}") from None


def _parse_jsonl(text: str, where: str) -> pd.DataFrame:
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: line {number}: not valid JSON: {getattr(error, 'msg', error)}") from None
        if not isinstance(record, dict):
            raise UserError(f"{where}: line {number}: found {type(record).__name__}, allowed: one object a line")
        records.append(record)
    if not records:
        raise UserError(f"{where}: the file is empty")
    return pd.DataFrame(records, dtype=object)


def _read_parquet(content: bytes, where: str) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
        table.validate(full=True)
        # Integers beside nulls stay integers, which floats would not: "1" is not the text "1.0".
        return table.to_pandas(integer_object_nulls=True, maps_as_pydicts="lossy")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{where}: not readable as parquet: {' '.join(str(error).split())[:200]}") from None
