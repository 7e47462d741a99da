"""Tables in files: csv, tsv and other text with separators, jsonl, parquet; each gives the same frame.

What can't be read with certainty is refused, with the line and the key of a task file that mends it: a table read
wrongly is noticed by nobody.
"""

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.common.form import Form

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".txt", ".data", ".label")
KEYS = "data.source."  # where the keys of a `Form` stand in a task's file


class Dialect(NamedTuple):
    """How the lines of a table become fields."""

    separator: str | None  # None: a line is one field
    quoted: bool
    escape: str | None
    mends: str  # begins the name of a key that mends an error; "" where no such key is read

    def hint(self, key: str, value: str) -> str:
        """How a key of the task's file would mend what is wrong."""
        as_yaml = {"\t": '"\\t"', "none": "none", "minimal": "minimal"}.get(value, f"'{value}'")
        return f", or {self.mends}{key}: {as_yaml}" if self.mends else ""


def read_table(path: Path, where: str, form: Form | None = None) -> pd.DataFrame:
    """Read a csv, tsv, jsonl or parquet file, or other text with separators; the suffix tells which.

    Values of text files stay strings: a text may be "NA" or "007". tsv knows no quotes, as in GLUE, unless told.

    Args:
        where: what to call it in an error.
        form: how it is written; None where no key of a task file can say it.
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
    mends, form = "" if form is None else KEYS, form or Form()
    separator = form.separator or SEPARATORS.get(suffix)
    if separator is None and len(form.header or []) != 1:
        allowed = f"one for {suffix} (or a {KEYS}header of one column)"
        raise UserError(f"{where}: found no {KEYS}separator, allowed: {allowed}")
    quoted = (suffix == ".csv" or separator in (",", ";")) if form.quoting is None else form.quoting == "minimal"
    dialect = Dialect(separator, quoted, form.escape, mends)
    records = _records(text, dialect, len(form.header or []), where)
    header, as_in = form.header, f"{KEYS}header"
    if header is None:
        number, header = next(records, (0, []))
        as_in = f"line {number}"
        if not number:
            raise UserError(f"{where}: the file is empty")
        if len(header) == 1 and (hint := _other_separator(header[0], dialect)):
            raise UserError(f"{where}: line {number}: found one column {header[0]!r}, allowed: several{hint}")
    rows, tall = [], {}
    for number, row in records:
        if len(header) > 1 and len(row) == 1 and not row[0].strip():
            continue  # an empty line
        if len(row) != len(header):
            hint = _other_separator(row[0], dialect) if len(row) == 1 else ""
            if len(row) > len(header) and quoted:
                hint = f" (a text or number with {separator!r} in it stands in double quotes)"
            found = f"line {number}: found {len(row)} columns, allowed: {len(header)} as in {as_in}"
            raise UserError(f"{where}: {found}{hint}")
        rows.append(row)
        if any("\n" in field for field in row):
            tall[number] = row
    if not rows:
        raise UserError(f"{where}: the file has no rows")
    last = {row[-1].strip() for row in rows if len(row) > 1} - {""}
    for number, row in tall.items():
        lines = [line.rpartition(separator or ",") for field in row for line in field.split("\n")[:-1]]
        if found_in := sorted(last & {end.strip() for _, between, end in lines if between}):
            says = f"line {number}: a text in quotes goes over lines that look like rows of {found_in[0]!r}"
            print(f"warning: {where}: {says}; is its quote meant?", file=sys.stderr)
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
    looks = json.detect_encoding(content)  # where there is no mark, by which bytes are 0
    encoding = looks if looks in ("utf-8-sig", "utf-16", "utf-32") else (form and form.encoding) or "utf-8"
    hint = f", or {KEYS}encoding: " if form is not None else ""
    if encoding == "utf-8" != looks:
        mends = f"{hint}{looks}" if hint else ""
        raise UserError(f"{where}: line 1: bytes are 0, as in {looks.upper()}; allowed: UTF-8{mends}")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        mends = f"{hint}cp1252 (or whatever it is)" if hint else ""
        found = f"byte 0x{content[error.start]:02x} is not {encoding.upper()}"
        raise UserError(f"{where}: line {line}: {found}; allowed: UTF-8{mends}") from None
    if "\n" not in text.rstrip("\r\n"):  # as old Macs end lines
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def _records(text: str, dialect: Dialect, columns: int, where: str) -> Iterator[tuple[int, list[str]]]:
    """Each row's fields, and the line that it begins in, from 1."""
    separator = dialect.separator
    if separator is None or (separator == " " and not dialect.quoted):
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, line.strip().split(separator, (columns or 0) - 1)
        return
    csv.field_size_limit(2**31 - 1)
    lines = io.StringIO(text, newline="\n")  # a lone CR ends no line
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter=separator, quoting=quoting, escapechar=dialect.escape, strict=True)
    start = 1
    try:
        for row in reader:
            if row:
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        line = text.split("\n")[reader.line_num - 1]
        raise UserError(f"{where}: {_fault(str(error), start, reader.line_num, line, dialect)}") from None


def _fault(error: str, start: int, number: int, line: str, dialect: Dialect) -> str:
    """What is wrong with the row that begins in line `start`, at which the csv reader stopped in line `number`."""
    if "new-line" in error:
        hint = "" if dialect.quoted else dialect.hint("quoting", "minimal")
        return f"line {number}: a lone carriage return; allowed: one inside quotes alone{hint}"
    fault, hint = f"line {start}: a quote opens and is never closed", dialect.hint("quoting", "none")
    if "expected after" in error:
        fault = f"line {start}: a quote opens and closes inside a text in line {number}"
        if '\\"' in line and dialect.escape is None:
            hint = dialect.hint("escape", "\\")
        elif (beside := re.search('"([;\t|,])', line)) and beside[1] != dialect.separator:
            hint = dialect.hint("separator", beside[1])
    return f"{fault}; allowed: two quotes for one inside a quoted text{hint}"


def _other_separator(row: str, dialect: Dialect) -> str:
    """A hint, where the one field of a row looks like several."""
    found = [other for other in ";\t|," if other != dialect.separator and other in row]
    return f", with {dialect.separator!r} between them{dialect.hint('separator', found[0])}" if found else ""


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
