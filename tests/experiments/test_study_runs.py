"""Real experiments of a toy DAG in DVC's queue: what is missing runs, what is there stays, failures are told."""

import csv
import io
import signal
import time
from pathlib import Path

import pytest

from condpdiff.experiments import study_results as results
from condpdiff.experiments import study_table
from condpdiff.experiments.study_plan import load_study
from tests.clone import run
from tests.experiments.toy import call, commits, make, started


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After a first `study run`, in which the row `loud` failed; the tests below go on from there, in their order."""
    folder = make(tmp_path_factory.mktemp("toy"))
    done = call(folder, "study", "run", "toy", "--jobs", "2")
    (folder / ".dvc/tmp/first.log").write_text(f"{done.returncode}\n{done.stdout}", encoding="utf-8")
    return folder


def cells(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "|" in line]
    return {first: rest for first, *rest in rows}


def test_a_failing_row_does_not_stop_the_others_and_is_named_with_its_log(toy: Path) -> None:
    status, *lines = (toy / ".dvc/tmp/first.log").read_text(encoding="utf-8").splitlines()
    assert status == "1"
    assert lines[-1] == "error: 1 of 4 experiments failed: toy-loud; `dvc queue logs toy-loud` tells why"
    assert set(commits(toy)) == {"toy-default", "toy-default-s1", "toy-one_hot"}
    assert "too loud" in run(toy, "dvc", "queue", "logs", "toy-loud").stdout
    assert {"toy-default: success", "toy-loud: failed"} <= set(lines)
    assert run(toy, "git", "status", "--porcelain").stdout == ""


def test_show_marks_missing_rows_and_counts_stage_runs(toy: Path) -> None:
    shown = call(toy, "study", "show", "toy").stdout
    rows = cells(shown.partition("Mean over all")[2])
    assert rows["default"][0] == "2" and rows["default"][4] == "80.49 ± 0.71"
    assert rows["loud (missing)"][:5] == ["0 of 1", "–", "–", "–", "–"]
    assert rows["one_hot"][4:7] == ["79.99", "−0.50", "−0.71"]
    assert rows["one_hot"][7:] == ["90.05", "77.12", "80.34", "82.50", "−4.39"]
    assert rows["default: soup"][1] == "81.00" and "one_hot: soup" not in rows
    assert cells(shown.partition("Mean over all")[0])["default"][4] == "79.49 ± 0.71"
    assert "1 of 4 experiments are missing" in shown
    assert rows["normalize"] == ["0", "0 of 1 rows", "0"]
    assert rows["report"] == ["2", "1 of 1 rows", "1"]


def test_csv_is_one_line_a_value_and_the_page_asks_no_host(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy)
    found = results.read(load_study("toy"))
    lines = list(csv.DictReader(io.StringIO(results.long_csv(found))))
    ours = [line for line in lines if line["value"] and line["arm"] == "condpdiff" and line["task"] == "tweets"]
    assert [(line["row"], line["seed"], line["value"]) for line in ours] == [
        ("default", "0", "79.99"), ("default", "1", "80.99"), ("one_hot", "0", "79.99"),
    ]  # fmt: skip
    theirs = [line for line in lines if line["paper"]]
    assert {line["task"] for line in theirs} == {"SST2", "STSB", "MRPC", "average"}
    assert {line["row"] for line in theirs} == {"default", "one_hot"}
    page = study_table.html(found)
    assert page.startswith("<!doctype html>") and "80.49 ± 0.71" in page
    assert "http" not in page and "<script" not in page


def test_experiments_are_a_table_of_figures_and_of_the_keys_that_differ(toy: Path) -> None:
    """Without the one that failed, which DVC shows with the figures of the commit that it started from."""
    rows = cells(call(toy, "experiments").stdout)
    head, *names = rows
    assert head == "experiment" and set(names) >= {"toy-default", "toy-default-s1", "toy-one_hot"}
    assert not any("loud" in name for name in names) and len(rows[head]) < 40
    of = dict(zip(rows[head], rows["toy-default-s1"], strict=True))
    assert (of["condpdiff_mean"], of["condpdiff"], of["soup"]) == ("79.99", "80.99", "81.00")
    assert (of["condition_effect"], of["statistics_effect"], of["ldm.seed"]) == ("0.50", "–", "1")
    assert "domain" not in of and "ae.lr" not in of and "condition.kind" in of


def test_dry_run_tells_the_command_of_what_is_missing(toy: Path) -> None:
    told = call(toy, "study", "run", "toy", "--dry-run").stdout.splitlines()
    assert told[0] == "toy-default: there"
    (missing,) = [line for line in told if not line.endswith("there")]
    assert missing.startswith("dvc exp run --queue -n toy-loud -S ") and "-S ae.noise=0.5" in missing


def test_interrupt_stops_at_once_and_leaves_queue_and_tree_as_they_were(toy: Path) -> None:
    (toy / "mood").write_text("sleep", encoding="utf-8")
    process = started(toy, "study", "run", "toy", "--row", "loud")
    assert process.stdout is not None
    assert any(line.startswith("toy-loud: running") for line in process.stdout)
    while "asleep" not in run(toy, "dvc", "queue", "logs", "toy-loud", check=False).stdout:
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    process.stdout.close()
    assert "toy-loud" not in commits(toy)
    assert {line[3:] for line in run(toy, "git", "status", "--porcelain").stdout.splitlines()} == {"mood"}


def test_a_name_with_other_settings_is_refused_then_replaced_and_what_is_missing_runs_alone(toy: Path) -> None:
    before, head = commits(toy), run(toy, "git", "rev-parse", "HEAD").stdout.strip()
    run(toy, "git", "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/toy-loud", before["toy-one_hot"])
    (toy / "mood").write_text("fine", encoding="utf-8")
    refused = call(toy, "study", "run", "toy")
    assert refused.returncode == 1 and commits(toy)["toy-loud"] == before["toy-one_hot"]
    (line,) = [line for line in refused.stdout.splitlines() if line.startswith("error: ")]
    assert "toy-loud" in line and "--force" in line and "`dvc exp remove toy-loud`" in line
    assert "Experiments of other settings have the names toy-loud." in call(toy, "study", "show", "toy").stdout
    forced = call(toy, "study", "run", "toy", "--force")
    assert forced.returncode == 0 and forced.stdout.splitlines()[-1] == "1 run, all there", forced.stdout
    after = commits(toy)
    assert before.items() < after.items() and set(after) - set(before) == {"toy-loud"}
    again = call(toy, "study", "run", "toy").stdout.splitlines()
    assert again == [f"toy-{row}: there" for row in ("default", "default-s1", "loud", "one_hot")] + ["all there"]


def test_rows_of_equal_settings_are_one_experiment_whatever_its_name(toy: Path) -> None:
    text = (toy / "configs/studies/toy.yaml").read_text(encoding="utf-8")
    (toy / "configs/studies/other.yaml").write_text(text.replace("one_hot: {keys", "hot: {keys"), encoding="utf-8")
    told = call(toy, "study", "run", "other")
    assert told.returncode == 0 and "other-hot: there, as toy-one_hot" in told.stdout
