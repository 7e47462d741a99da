"""The command line: thin, one line for an error, status 1."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from condpdiff.cli import app
from condpdiff.experiments.presets import preset_names

ROOT = Path(__file__).parent.parent.parent
PARAMS = Path("params.yaml")


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "configs/default.yaml", tmp_path / PARAMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONDPDIFF_CACHE", str(tmp_path / "cache"))


def call(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == status, result.output
    return result.output


@pytest.mark.parametrize("words", [("preset",), ("preset", "--list")])
def test_preset_without_name_lists_each_with_what_it_is(words: tuple[str, ...]) -> None:
    lines = call(*words).splitlines()
    assert [line.split()[0] for line in lines] == preset_names()
    assert all("Table 1" in line for line in lines if "-base-r" in line)
    assert all(len(line.split()) > 5 for line in lines)


def test_preset_applies_and_says_what_changed() -> None:
    assert "collect.rank: 1 -> 2" in call("preset", "roberta-base-r2")
    assert "name: FacebookAI/roberta-base" in PARAMS.read_text()
    assert "already" in call("preset", "roberta-base-r2")


def test_dry_run_writes_nothing() -> None:
    before = PARAMS.read_bytes()
    text = call("preset", "smoke", "--dry-run")
    assert "data.max_train: 4000 -> 400" in text
    assert "dvc exp run -S 'tasks=[movies, tweets]' -S data.max_train=400" in text
    assert PARAMS.read_bytes() == before


def test_describe_of_a_preset_leaves_params_alone() -> None:
    before = PARAMS.read_bytes()
    told = json.loads(call("describe", "--preset", "bert-base-r4", "--json"))
    assert told["lora"]["K"] == 294_912
    assert PARAMS.read_bytes() == before


def test_describe_reads_params(monkeypatch: pytest.MonkeyPatch) -> None:
    # DVC's log handlers would keep CliRunner's stderr, which is closed when the next test logs.
    monkeypatch.setattr("condpdiff.experiments.describe.stage_states", lambda: {"train-ae": {"will run": 1}})
    call("preset", "smoke")
    text = call("describe")
    assert "K = 18,432" in text and "N = 12" in text
    assert text.split()[-4:] == ["train-ae", "1", "will", "run"]


def test_study_lists_each_with_what_it_is() -> None:
    lines = call("study").splitlines()
    assert "table4b  Table 4b: what the condition is made of" in lines
    assert len(lines) == len(list(Path("configs/studies").glob("*.yaml")))


@pytest.mark.parametrize(
    ("words", "example"),
    [
        ((), "condpdiff preset smoke"),
        (("preset",), "condpdiff preset smoke"),
        (("describe",), "condpdiff describe --preset"),
        (("study",), "condpdiff study run table3"),
        (("study", "run"), "condpdiff study run noise --jobs 2"),
        (("study", "show"), "condpdiff study show table3 --html"),
    ],
)
def test_help_teaches(words: tuple[str, ...], example: str) -> None:
    assert example in call(*words, "--help")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("preset", "smok"), "error: unknown preset 'smok' (did you mean 'smoke'?); allowed: default, "),
        (("describe", "--preset", "smok"), "error: unknown preset 'smok' (did you mean 'smoke'?)"),
        (("study", "show", "tabel3"), "error: unknown study 'tabel3' (did you mean 'table3'?); allowed: noise, "),
        (("study", "show", "noise", "--md", "--csv"), "error: --md, --csv, --html: found several, allowed: one"),
    ],
)
def test_error_is_one_line_on_stderr_and_status_1(words: tuple[str, ...], line: str) -> None:
    """In a process of its own: CliRunner does not show which stream a line goes to."""
    command = [sys.executable, "-c", "from condpdiff.cli import app; app()", *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith(line) and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("noise: 0.001", "nose: 0.001", "params.yaml: unknown key 'ae.nose' (did you mean 'noise'?)"),
        ("[movies, ", "[movie, ", "unknown task 'movie' (did you mean 'movies'?)"),
    ],
)
def test_wrong_params_are_one_line(old: str, new: str, says: str) -> None:
    PARAMS.write_text(PARAMS.read_text().replace(old, new, 1))
    text = call("describe", status=1)
    assert text.startswith("error: ") and says in text and text.strip().count("\n") == 0


def test_outside_the_repository_it_says_which_file_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call("describe", status=1).strip() == "error: params.yaml: no such file"
