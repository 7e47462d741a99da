"""Real experiments of a toy DAG: what is missing runs, what is there stays, failures are told."""

import csv
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from condpdiff.common.errors import UserError
from condpdiff.experiments import launch, study_results
from condpdiff.experiments.study_plan import load_study
from tests.clone import ROOT, run
from tests.experiments.toy import commits, make


def study(jobs: int = 1) -> tuple[list[str], str]:
    """What `condpdiff study run` says, and its error."""
    said: list[str] = []
    try:
        launch.start(launch.study_jobs(load_study("toy"), said.append), jobs, False, said.append)
    except UserError as error:
        return said, str(error)
    return said, ""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory; the tests below go on from each other, in their order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        folder = make(tmp_path_factory.mktemp("toy"))
        patch.chdir(folder)
        yield folder


def cells(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "|" in line]
    return {first: rest for first, *rest in rows}


def test_a_failing_row_does_not_stop_the_others_and_is_named_with_its_log(toy: Path) -> None:
    _, error = study(jobs=2)
    assert error.startswith("toy-loud: failed, 0 that need it not begun; tmp/slurm/toy-loud-here.log: ")
    assert set(commits(toy)) == {"toy-default", "toy-one_hot"}
    assert "too loud" in (toy / "tmp/slurm/toy-loud-here.log").read_text(encoding="utf-8")
    assert run(toy, "git", "status", "--porcelain").stdout == ""


def test_show_marks_missing_rows_and_counts_stage_runs(toy: Path) -> None:
    found = study_results.read(load_study("toy"))
    shown = study_results.markdown(found)
    rows = cells(shown.partition("Mean over all")[2])
    assert rows["default"][0] == "1" and rows["default"][4] == "79.99"
    assert rows["loud (missing)"][:5] == ["0 of 1", "–", "–", "–", "–"]
    assert rows["one_hot"][4:6] == ["79.99", "+0.00"]
    assert rows["one_hot"][7:] == ["90.05", "77.12", "80.34", "82.50", "−4.39"]
    assert rows["default: soup"][1] == "81.00" and "one_hot: soup" not in rows
    assert cells(shown.partition("Mean over all")[0])["default"][4] == "78.99"
    assert "1 of 3 experiments are missing" in shown
    assert rows["train-ae"] == ["1", "0 of 1 rows", "0"]
    assert rows["report"] == ["1", "1 of 1 rows", "1"]
    lines = list(csv.DictReader(io.StringIO(study_results.long_csv(found))))
    ours = [line for line in lines if line["value"] and line["arm"] == "condpdiff" and line["task"] == "tweets"]
    rows_of = [(line["row"], line["seed"], line["value"]) for line in ours]
    assert rows_of == [("default", "0", "79.99"), ("one_hot", "0", "79.99")]
    theirs = {(line["row"], line["task"]) for line in lines if line["paper"]}
    assert theirs == {(r, t) for r in ("default", "one_hot") for t in ("SST2", "STSB", "MRPC", "average")}


def test_commands_show_tables_and_a_dry_run_tells_the_command_of_what_is_missing(toy: Path) -> None:
    calls = [["study", "run", "toy", "--dry-run"], ["study", "show", "toy"]]
    code = f"from condpdiff.cli import app; [app(words, standalone_mode=False) for words in {calls}]"
    there, _, missing, *shown = run(toy, sys.executable, "-c", code).stdout.splitlines()
    assert there == "toy-default: there"
    assert " exp run --temp -n toy-loud -S " in missing and "-S ae.noise=0.5" in missing
    for row in ("one_hot", "loud (missing)"):
        assert any(line.startswith(f"| {row} ") for line in shown)


def test_ctrl_c_stops_at_once_and_leaves_the_tree_as_it_was(toy: Path, tmp_path: Path) -> None:
    (toy / "mood").write_text(f"sleep {tmp_path / 'asleep'}", encoding="utf-8")
    # The `&` of a shell may have turned SIGINT off.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from condpdiff.cli import app; "
    code += "app(['study', 'run', 'toy', '--row', 'loud'])"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, start_new_session=True)
    while not (tmp_path / "asleep").exists():
        time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.communicate(timeout=30)[1] == b"error: stopped by Ctrl-C\n" and process.returncode == 1
    assert "toy-loud" not in commits(toy)
    assert {line[3:] for line in run(toy, "git", "status", "--porcelain").stdout.splitlines()} == {"mood"}


def test_a_name_with_other_settings_is_refused_and_what_is_missing_runs_alone(toy: Path) -> None:
    before, head = commits(toy), run(toy, "git", "rev-parse", "HEAD").stdout.strip()
    run(toy, "git", "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/toy-loud", before["toy-one_hot"])
    (toy / "mood").write_text("fine -", encoding="utf-8")
    _, refused = study()
    assert commits(toy)["toy-loud"] == before["toy-one_hot"]
    assert "toy-loud" in refused and "`dvc exp remove toy-loud`" in refused
    assert "have the names toy-loud." in study_results.markdown(study_results.read(load_study("toy")))
    run(toy, "dvc", "exp", "remove", "toy-loud")
    said, error = study()
    assert error == "" and said[-1] == "1/1 toy-loud: done"
    after = commits(toy)
    assert before.items() < after.items() and set(after) - set(before) == {"toy-loud"}
    assert study()[0] == [f"toy-{row}: there" for row in ("default", "loud", "one_hot")] + ["everything is up to date"]
