"""Tables: every file format gives the same one; what is not certain is one line that says what mends it."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from condpdiff.common.settings import parse
from condpdiff.common.tables import read_table
from condpdiff.common.task import Form
from tests.messages import message_of

WORDS = ["NA", "007", "naïve 🎉", 'a "quoted" word', "", "nul\0 and \u2028"]
FRAME = pd.DataFrame({"text": WORDS, "label": list("abcdef")})
MENDS_END = "separator, quoting, escape and encoding say how a file is written"
pytestmark = pytest.mark.usefixtures("in_a_folder")
CSV = "text,label\n" + "".join(f"text {i},{'good' if i % 2 else 'bad'}\n" for i in range(9))


def read(name: str, content: bytes | str, **form: object) -> list[list[str]]:
    """The rows of a file, or one line."""
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(Path(name), "here", parse(Form, form, "t.yaml")).to_numpy().tolist()


WRITERS: dict[str, Callable[[Path], object]] = {
    "csv": lambda path: FRAME.to_csv(path, index=False),
    "CSV": lambda path: path.write_bytes(b"\xef\xbb\xbf" + FRAME.to_csv(index=False).replace("\n", "\r\n").encode()),
    "tsv": lambda path: path.write_text("text\tlabel\n" + "".join(f"{t}\t{x}\n" for t, x in FRAME.to_numpy())),
    "jsonl": lambda path: path.write_text("\n\n".join(json.dumps(dict(row)) for _, row in FRAME.iterrows()) + "\n"),
    "parquet": FRAME.to_parquet,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_table(suffix: str) -> None:
    path = Path(f"a.{suffix}")
    WRITERS[suffix](path)
    found = read_table(path, "here")
    assert list(found.columns) == ["text", "label"]
    assert found.to_numpy().tolist() == FRAME.to_numpy().tolist()


def test_header_names_the_columns_of_a_file_without_one() -> None:
    line = 'gj04\t1\tThe "cat sat.\n'
    assert read("a.tsv", line, header=["o", "label", "text"]) == [["gj04", "1", 'The "cat sat.']]
    message = message_of(read, "a.tsv", line, header=["o", "text"])
    assert message.startswith("here: line 1: found 3 columns, allowed: 2 as in data.source.header; ")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.doc", b"x", "found suffix '.doc', allowed: .csv, .tsv, .jsonl, .parquet, .txt, .data, .label, or one of"),
        ("a.txt", b"x", "found no data.source.separator, allowed: one for .txt (or a data.source.header of one col"),
        ("a.csv.gz", b"x", "not readable as gzip: Not a gzipped file"),
        ("a.csv.gz", gzip.compress(CSV.encode(), mtime=0)[:-9], "not readable as gzip: Compressed file ended before"),
        ("a.csv", b"text,label\n", "the file has no rows"),
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b'text,label\na,bad\n"b,good\n', "line 3: a quote opens and is never closed; allowed: two quotes fo"),
        ("a.jsonl", b'{"text": "a", "label": 0}\n{"text": "b", "la', "line 2: not valid JSON"),
        ("a.jsonl", b'["a", 0]\n', "line 1: found list, allowed: one object a line"),
        ("a.parquet", FRAME.to_parquet()[:-30], "not readable as parquet"),
    ],
)
def test_unreadable_table_is_one_line(name: str, content: bytes, said: str) -> None:
    Path(name).write_bytes(content)
    assert message_of(read_table, Path(name), "here", Form()).startswith(f"here: {said}")


@pytest.mark.parametrize(
    ("change", "encoding", "form"),
    [
        (("", ""), "utf-16", {}),
        (("", ""), "utf-16-le", {"encoding": "utf-16-le"}),
        (("text 1", "“tëxt”"), "cp1252", {"encoding": "cp1252"}),
        (("\n", "\r"), "utf-8", {}),  # as old Macs end lines
        ((",", ";"), "utf-8", {"separator": ";"}),
        (("text 1", '"a \rb"'), "utf-8", {}),
    ],
)
def test_encodings_line_ends_and_separators_are_read_where_they_are_marked_or_told(
    change: tuple[str, str], encoding: str, form: dict[str, object]
) -> None:
    found = read("a.csv", CSV.replace(*change).encode(encoding) if change[0] else CSV.encode(encoding), **form)
    assert len(found) == 9 and found[2] == ["text 2", "bad"]
    assert found[1][0] == {"text 1": change[1].strip('"')}.get(change[0], "text 1")


def test_quotes_and_escapes_are_read_as_told() -> None:
    assert read("a.csv", 'text,label\n"say \\"no\\", she said",bad\n', escape="\\") == [['say "no", she said', "bad"]]
    found = read("a.csv", 'text,label\n"open,bad\n6" nail,good\n', quoting="none")
    assert found == [['"open', "bad"], ['6" nail', "good"]]
    assert read("a.tsv", 'text\tlabel\n"a\tb"\tbad\n', quoting="minimal") == [["a\tb", "bad"]]
    lines = b"DESC:manner How did he ?\nENTY:animal What  is\n"
    expected = [["DESC:manner", "How did he ?"], ["ENTY:animal", "What  is"]]
    assert read("a.label", lines, separator=" ", header=["label", "text"]) == expected
    assert read("a.txt.gz", gzip.compress(lines), header=["text"])[0] == ["DESC:manner How did he ?"]
    assert read("a.data", CSV, separator=",") == read("a.jsonl.csv", CSV)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (CSV.replace("text 2", '"text 2').replace("text 7", '6" text'), "4: a quote opens and closes inside a"),
        (CSV.replace("text 2", '"a\nb","c "d" e"'), "4: a quote opens and closes inside a text in line 5"),
        (CSV.replace("text 2", '"a \\"b\\""'), "4: a quote opens and closes inside a text in line 4"),
        (CSV.replace("text", '"text"').replace(",", ";"), "1: a quote opens and closes inside a text in line 1"),
        (CSV + "one\n", "11: found 1 columns, allowed: 2 as in line 1"),
        (CSV + "a,b,c\n", "11: found 3 columns, allowed: 2 as in line 1"),
        (CSV.replace("text 2", "te\rxt"), "4: found a lone carriage return"),
        (CSV.encode("utf-16-le"), "1: bytes are 0, as in UTF-16-LE; allowed: UTF-8"),
        (CSV.replace("text 2", "tëxt").encode("cp1252"), "4: byte 0xeb is not UTF-8"),
    ],
)
def test_what_is_not_certain_names_line_cause_and_the_keys_that_mend_it(content: bytes | str, said: str) -> None:
    message = message_of(read, "a.csv", content)
    assert message.startswith(f"here: line {said}") and message.endswith("data.source." + MENDS_END)
    assert "data.source" not in message_of(read_table, Path("a.csv"), "here")  # no task file can say it


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"separator": "\\t"}, r"""separator: found '\\t', allowed: one character (a tab is "\t" in double quotes)"""),
        ({"encoding": "rot13"}, "encoding: found 'rot13', allowed: a name that Python knows"),
        ({"quoting": "non"}, "quoting: found 'non' (did you mean 'none'?), allowed: 'minimal' or 'none'"),
    ],
)
def test_key_of_a_form_that_can_not_be_is_one_line(form: dict[str, object], said: str) -> None:
    assert message_of(parse, Form, form, "t.yaml").startswith(f"t.yaml: {said}")


def test_parquet_keeps_integers_beside_nulls_and_categories() -> None:
    table = {"n": pa.array([2**53 + 1, None]), "c": pa.array(["b", "a"]).dictionary_encode(), "l": [["x"], ["y", "z"]]}
    pq.write_table(pa.table(table), "a.parquet")
    found = read_table(Path("a.parquet"), "here")
    assert found["n"].tolist() == [2**53 + 1, None] and found["c"].tolist() == ["b", "a"]
    pd.DataFrame({"n": pd.array([1, None], dtype="Int64")}).to_parquet("b.parquet")
    assert read_table(Path("b.parquet"), "here")["n"].tolist() == [1, pd.NA]
