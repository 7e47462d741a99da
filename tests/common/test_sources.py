"""What sources are read with: every file format gives the same table; what can't be read is one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pandas as pd
import pytest

from condpdiff.common.errors import UserError
from condpdiff.common.sources import hub_data, own_path, package_file, read_table

WORDS = ["NA", "007", "naïve 🎉", 'a "quoted" word', ""]
FRAME = pd.DataFrame({"text": WORDS, "label": list("abcde")})


def message_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- tables -------------------------------------------------------------------------------------

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
    found = read_table(path, None, "here")
    assert list(found.columns) == ["text", "label"]
    assert found.to_numpy().tolist() == FRAME.to_numpy().tolist()


def test_header_names_the_columns_of_a_file_without_one() -> None:
    Path("a.tsv").write_text('gj04\t1\tThe "cat sat.\n')
    assert read_table(Path("a.tsv"), ["o", "label", "text"], "here").to_dict("records") == [
        {"o": "gj04", "label": "1", "text": 'The "cat sat.'}
    ]
    message = message_of(lambda: read_table(Path("a.tsv"), ["o", "text"], "here"))
    assert message == "here: found 3 columns, allowed: 2 as in data.source.header"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"x", "found suffix '.txt', allowed: .csv, .tsv, .jsonl, .parquet"),
        ("a", b"x", "found suffix ''"),
        ("a.csv.gz", b"x", "found suffix '.gz'"),
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"text,label\n\xff\xfe,bad\n", "not UTF-8 at byte 11; allowed: UTF-8 text"),
        ("a.csv", b"text,label\na,bad\nb,bad,good\n", "not readable as csv: Expected 2 fields in line 3, saw 3"),
        ("a.csv", b'text,label\na,bad\n"b,good\n', "not readable as csv: EOF inside string"),
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b'{"text": "a", "label": 0}\n{"text": "b", "la', "line 2: not valid JSON"),
        ("a.jsonl", b'["a", 0]\n', "line 1: found list, allowed: one object a line"),
        ("a.parquet", b"", "not readable as parquet"),
        ("a.parquet", b"PAR1 truncated", "not readable as parquet"),
        ("a.parquet", FRAME.to_parquet()[:-30], "not readable as parquet"),
    ],
)
def test_unreadable_table_is_one_line(name: str, content: bytes, said: str) -> None:
    Path(name).write_bytes(content)
    assert message_of(lambda: read_table(Path(name), None, "here")).startswith(f"here: {said}")


# --- the user's own files, and packages' --------------------------------------------------------


def test_own_path_must_be_there_and_absolute_ones_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.csv").write_text("")
    assert own_path("a.csv", "t.yaml: key") == Path("a.csv")
    assert own_path(".", "t.yaml: key", folder=True) == Path()
    assert capsys.readouterr().err == ""
    assert own_path(f"{tmp_path}/a.csv", "t.yaml: key") == tmp_path / "a.csv"
    assert capsys.readouterr().err.startswith(f"warning: t.yaml: key: {tmp_path}/a.csv is an absolute path")
    for name, folder in (("b.csv", False), (".", False), ("a.csv", True)):
        message = message_of(lambda: own_path(name, "t.yaml: key", folder))  # noqa: B023
        kind = "folder" if folder else "file"
        assert message.startswith(f"t.yaml: key: no such {kind} {name!r} (a relative path starts at the root")


def test_errors_of_packages_name_the_key() -> None:
    message = message_of(lambda: package_file("vaderSentimen", "a", "t.yaml: data.source"))
    assert message.startswith("t.yaml: data.source: unknown package 'vaderSentimen' (did you mean 'vaderSentiment'?)")


# --- the hub ------------------------------------------------------------------------------------


def read_hub(error: Exception | None) -> None:
    with hub_data("some/set", "rte", "t.yaml", "or do without") as (_, place):
        assert place == "t.yaml: data.source: hub data set some/set (rte)"
        if error:
            raise error


@pytest.mark.parametrize("answers", [True, False])
def test_hub_that_fails_is_one_line_that_says_how_to_do_without(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ConnectionError("no route\nto host")

    def dataset_info(*_: Any, **__: Any) -> None:
        if not answers:
            raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    message = message_of(lambda: read_hub(error))
    assert "some/set (rte): cannot be loaded with datasets.load_dataset (no route to host); or do without" in message


@pytest.mark.usefixtures("no_hub")
def test_offline_the_hub_is_not_asked_and_our_own_errors_and_a_full_disk_pass() -> None:
    read_hub(None)
    assert message_of(lambda: read_hub(UserError("our own"))) == "our own"
    with pytest.raises(OSError, match="full"):
        read_hub(OSError(28, "full"))
