"""The command line: thin, one line for an error, status 1."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from condpdiff.cli import app
from condpdiff.experiments.presets import preset_names

PARAMS = Path("params.yaml")
pytestmark = pytest.mark.usefixtures("repository")


def call(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == status, result.output
    return result.output


def test_lists_say_what_each_preset_and_study_is() -> None:
    lines = call("preset").splitlines()
    assert [line.split()[0] for line in lines] == preset_names()
    assert all("Table 1" in line for line in lines if "-base-r" in line)
    assert all(len(line.split()) > 5 for line in lines)
    lines = call("study").splitlines()
    assert ["table4b", "Table 4b: what the condition is made of"] in [line.split(maxsplit=1) for line in lines]
    assert len(lines) == len(list(Path("configs/studies").glob("*.yaml")))


def test_preset_applies_and_says_what_changed_and_a_dry_run_writes_nothing() -> None:
    before = PARAMS.read_bytes()
    text = call("preset", "roberta-base-r2", "--dry-run")
    assert "collect.rank: 1 -> 2" in text and "dvc exp run -S 'tasks=[sst2," in text and " -S collect.rank=2" in text
    assert PARAMS.read_bytes() == before
    assert "collect.rank: 1 -> 2" in call("preset", "roberta-base-r2")
    assert "name: FacebookAI/roberta-base" in PARAMS.read_text()
    assert "already" in call("preset", "roberta-base-r2")


def test_describe_reads_params() -> None:
    PARAMS.write_text(PARAMS.read_text().replace("n_checkpoints: 150", "n_checkpoints: 7"))
    text = call("describe")
    assert "  K: 18432\n" in text and "  N: 7\n" in text
    before = PARAMS.read_bytes()
    assert "  K: 294912\n" in call("describe", "--preset", "bert-base-r4")
    assert PARAMS.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("preset", "smok"), "error: unknown preset 'smok' (did you mean 'smoke'?); allowed: default, "),
        (("describe", "--preset", "bert-bas-r4"), "error: unknown preset 'bert-bas-r4' (did you mean 'bert-base-r4'?)"),
        (("study", "show", "tabel3"), "error: unknown study 'tabel3' (did you mean 'table3'?); allowed: "),
        (("study", "show", "noise"), "error: experiments: you are not inside of a DVC repository"),
        (("import", "mine", "--task", "movie"), "error: params.yaml: tasks: unknown task 'movie' (did you mean"),
        (("export", "mine", "out"), "error: mine: no such adapter, allowed: sample:TASK/3, "),
    ],
)
def test_error_is_one_line_on_stderr_and_status_1(words: tuple[str, ...], line: str) -> None:
    """In a process of its own: CliRunner does not show which stream a line goes to."""
    command = [sys.executable, "-c", "from condpdiff.cli import app; app()", *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith(line) and result.stderr.count("\n") == 1
