"""Tables in files: csv, tsv and other text with separators, jsonl, parquet; each gives the same frame.

What can't be read with certainty is refused, with the line and the key of a task file that mends it: a table read
wrongly is noticed by nobody.
"""

import codecs
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
ALLOWED = f"{', '.join(SUFFIXES)}, or one of these with .gz"
KEYS = "data.source."
"""Where the keys of a `Form` stand in a task's file."""
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Dialect(NamedTuple):
    """How the lines of a table become fields."""

    separator: str | None
    """None: a line is one field."""
    quoted: bool
    escape: str | None
    mends: str
    """Begins the name of a key that mends an error; "" where no such key is read."""

    def hint(self, key: str, value: str) -> str:
        """How a key of the task's file would mend what is wrong."""
        return f", or {self.mends}{key}: {value}" if self.mends else ""


def read_table(path: Path, where: str, form: Form | None = None) -> pd.DataFrame:
    """Read a csv, tsv, jsonl or parquet file, or other text with separators; the suffix tells which.

    Values of text files stay strings: a text may be "NA" or "007". tsv knows no quotes, as in GLUE, unless told.

    Args:
        where: what to call it in an error.
        form: how it is written; None where no key of a task file can say it.

    Raises:
        UserError: unknown suffix, another encoding, truncated or malformed content.
    """
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix not in SUFFIXES:
        raise UserError(f"{where}: found suffix {suffix!r}, allowed: {ALLOWED}")
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
    """Parse text with separators into a frame of strings; an empty value is "".

    Raises:
        UserError: as `read_table`.
    """
    known, form = form is not None, form or Form()
    separator = form.separator or SEPARATORS.get(suffix)
    if separator is None and len(form.header or []) != 1:
        raise UserError(
            f"{where}: found no {KEYS}separator, allowed: one for {suffix} (or a {KEYS}header of one column)"
        )
    minimal = suffix == ".csv" or separator in (",", ";")
    quoted = form.quoting == "minimal" or (form.quoting is None and minimal and separator is not None)
    dialect = Dialect(separator, quoted, form.escape, KEYS if known else "")
    records = _records(text, dialect, len(form.header or []), where)
    header, as_in = form.header, f"{KEYS}header"
    if header is None:
        number, header = next(records, (0, []))
        as_in = f"line {number}"
        if not number:
            raise UserError(f"{where}: the file is empty")
        if len(header) == 1 and (hint := _other_separator(header, dialect)):
            raise UserError(f"{where}: line {number}: found one column {header[0]!r}, allowed: several{hint}")
    rows, tall = [], {}
    for number, row in records:
        if len(header) > 1 and len(row) == 1 and not row[0].strip():
            continue  # an empty line
        if len(row) != len(header):
            allowed = f"{len(header)} as in {as_in}"
            hint = _other_separator(row, dialect) if len(row) == 1 else ""
            if len(row) > len(header) and dialect.quoted:
                hint = f" (a text or number with {separator!r} in it stands in double quotes)"
            raise UserError(f"{where}: line {number}: found {len(row)} columns, allowed: {allowed}{hint}")
        rows.append(row)
        if any("\n" in field for field in row):
            tall[number] = row
    if not rows:
        raise UserError(f"{where}: the file has no rows")
    last = {row[-1].strip() for row in rows if len(row) > 1} - {""}
    for number, row in tall.items():
        lines = [line.rpartition(separator or ",") for field in row for line in field.split("\n")[:-1]]
        if found := last & {end.strip() for _, between, end in lines if between}:
            says = f"line {number}: a text in quotes goes over lines that look like rows of {sorted(found)[0]!r}"
            print(f"warning: {where}: {says}; is its quote meant?", file=sys.stderr)
    return pd.DataFrame(rows, columns=pd.Index(header, dtype=object), dtype=object)


def is_missing(value: Any) -> bool:
    """Whether a file has nothing there."""
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value))


def shown(value: Any) -> str:
    """A value of no use, in an error: its kind, and its beginning."""
    kind = {"dict": "an object", "list": "a list", "tuple": "a list", "ndarray": "a list", "bool": "a boolean"}
    text = " ".join(repr(value.tolist() if isinstance(value, np.ndarray) else value).split())
    return f"{kind.get(type(value).__name__, type(value).__name__)} {text if len(text) <= 60 else text[:57] + '...'}"


def _decode(content: bytes, where: str, form: Form | None) -> str:
    marked = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    encoding = marked or (form and form.encoding) or "utf-8"
    hint = f", or {KEYS}encoding" if form is not None else ""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = f"byte 0x{content[error.start]:02x} is not {encoding.upper()}"
        example = f"{hint}: cp1252 (or whatever it is)" if hint else ""
        raise UserError(f"{where}: line {line}: {found}; allowed: UTF-8{example}") from None
    if encoding == "utf-8" and len(content) > 1 and (content[0] == 0) != (content[1] == 0):
        name = "utf-16-be" if content[0] == 0 else "utf-16-le"
        raise UserError(f"{where}: line 1: every second byte is 0, as in UTF-16; allowed: UTF-8{hint}: {name}")
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
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "new-line" in str(error):
                fault = f"line {reader.line_num}: a lone carriage return; allowed: one inside quotes alone"
                fault += "" if dialect.quoted else dialect.hint("quoting", "minimal")
            else:
                fault = _quote_fault(text, start, dialect)
            raise UserError(f"{where}: {fault}") from None
        if row:
            yield start, row


def _quote_fault(text: str, start: int, dialect: Dialect) -> str:
    """What is wrong with the quotes of the row that begins in line `start`."""
    record = text.split("\n", start - 1)[-1]
    escaped = f"|{re.escape(dialect.escape)}." if dialect.escape else ""
    inside = f'[^"{re.escape(dialect.escape or "")}]|""{escaped}'
    quoted = re.compile(f'"(?:{inside})*+"', re.DOTALL)
    at = 0
    while at < len(record):  # over the fields that are as they should be
        if record[at] == '"':
            found = quoted.match(record, at)
            if found is None or not re.match(rf"{re.escape(dialect.separator or '')}|\r?\n|\Z", record[found.end() :]):
                break
            at = found.end() + 1
        else:
            at = re.compile(rf"[^\n{re.escape(dialect.separator or '')}]*").match(record, at).end() + 1  # type: ignore[union-attr]
    opened = start + record.count("\n", 0, at)
    close = quoted.match(record, at)
    if close is None:
        says, hint = f"line {opened}: a quote opens and is never closed", dialect.hint("quoting", "none")
    else:
        line, after = start + record.count("\n", 0, close.end()), record[close.end()]
        says = f"line {opened}: a quote opens and closes inside a text in line {line}, before {after!r}"
        hint = dialect.hint("quoting", "none")
        if after in ";\t|,":
            hint = dialect.hint("separator", repr(after) if after != "\t" else '"\\t"')
        elif record[close.end() - 2] == "\\" and dialect.escape is None:
            hint = dialect.hint("escape", "'\\'")
    return f"{says}; allowed: two quotes for one inside a quoted text{hint}"


def _other_separator(row: list[str], dialect: Dialect) -> str:
    """A hint, where the one field of a row looks like several."""
    for other in ";\t|,":
        if other != dialect.separator and other in row[0]:
            as_yaml = '"\\t"' if other == "\t" else repr(other)
            return f", with {dialect.separator!r} between them{dialect.hint('separator', as_yaml)}"
    return ""


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
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: not readable as parquet: {reason}") from None
