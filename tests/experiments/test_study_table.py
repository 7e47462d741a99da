"""A study's table out of made-up experiments: arms, spread over seeds, differences, references, the paper's figures."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from condpdiff.experiments import finished
from condpdiff.experiments import study_results as table
from condpdiff.experiments.finished import Experiment
from condpdiff.experiments.study_plan import load_study
from condpdiff.experiments.study_results import Results
from tests.experiments.conftest import ROOT

Arms = dict[str, float]
pytestmark = pytest.mark.usefixtures("repository")


@pytest.fixture(autouse=True)
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("condpdiff.experiments.study_results.lock_at", lambda commit: {})


def experiment(name: str, values: dict[str, Arms]) -> Experiment:
    found = Experiment(name, "commit", "b" * 40, "settings")
    vars(found)["values"] = pd.DataFrame.from_dict(values, orient="index")  # else read at the commit
    return found


def made(name: str, arms_of: Callable[[str, int], Arms]) -> Results:
    """Experiments of all runs: values of `arms_of(row, seed)`, the same for every task."""
    study, found = load_study(name), {}
    for row in study.rows:
        for seed, run in row.runs.items():
            values = dict.fromkeys([*run.tasks, "average"], arms_of(row.name, seed))
            found[run.name] = experiment(run.name, values)
    return Results(study, found, [])


def lines(text: str, what: str = "") -> dict[str, list[str]]:
    """Rows of the first Markdown table whose caption begins with `what`."""
    (block,) = re.findall(rf"((?:\|.*\n)+)\n{what}", text)[:1]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()]
    return {first: rest for first, *rest in cells}


def test_the_mean_over_candidates_stands_before_the_selected_one_and_captions_say_what_seeds_alone_may_do() -> None:
    arms = {"condpdiff": 81.0, "condpdiff_mean": 80.0, "original": 79.0, "original_mean": 78.0, "soup": 80.5}
    text = table.markdown(made("table3", lambda row, seed: arms))
    assert text.index("Mean over all generated candidates") < text.index("Selected candidate")
    assert lines(text, "Mean over all")["n-150: original_mean"][1] == "78.00"
    assert lines(text, "Selected")["n-150: original"][1] == "79.00"
    assert text.count("to 5.0 of these standard deviations on either side (Student's t of 3 seeds)") == 2
    assert text.count("The paper's figures are of selected candidates.") == 1
    alone = {arm: value for arm, value in arms.items() if not arm.endswith("_mean")}
    assert "Mean over all" not in table.markdown(made("table3", lambda row, seed: alone))


def test_differences_are_from_the_shared_settings_and_in_units_of_their_seeds() -> None:
    def arms(row: str, seed: int) -> Arms:
        return {"condpdiff": 80.0 + 2 * (seed - 1) if row == "n-150" else 75.0, "original": 79.0, "soup": 80.5}

    found = lines(table.markdown(made("table3", arms)))
    assert found["row"][5:7] == ["difference", "in seeds' std"]
    assert found["n-150"][0] == "3" and found["n-150"][4:7] == ["80.00 ± 2.00", "–", "–"]
    assert found["n-1"][0] == "1" and found["n-1"][4:7] == ["75.00", "−5.00", "−2.50"]
    assert found["n-1"][7:11] == ["90.23", "80.71", "82.71", "84.55"]
    assert found["n-1"][11] == "−2.34"  # 84.55 - 86.89, N = 200
    assert found["n-20"][7:12] == ["–"] * 5


def test_a_row_has_reference_lines_of_its_own_where_they_differ() -> None:
    def arms(row: str, seed: int) -> Arms:
        return {"condpdiff": 80.0, "original": 79.0, "soup": 70.0 if row == "n-1" else 80.5}

    references = {row: cells[1] for row, cells in lines(table.markdown(made("table3", arms))).items() if ": " in row}
    assert references == {"n-1: soup": "70.00", "n-150: original": "79.00", "n-150: soup": "80.50"}


def test_values_are_of_arms_csv_and_an_average_is_of_arms_that_all_tasks_have(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "task,arm,score,mean,low,high\na,condpdiff,80,79,,\na,soup,81,,,\nb,condpdiff,70,60,,\n"
    monkeypatch.setattr(finished, "read_at", lambda commit, path: text)
    values = Experiment("e", "c" * 40, "b" * 40, "s").values
    assert values.loc["a"].dropna().to_dict() == {"condpdiff": 80.0, "condpdiff_mean": 79.0, "soup": 81.0}
    assert values.loc["average"].dropna().to_dict() == {"condpdiff": 75.0, "condpdiff_mean": 69.5}


@pytest.mark.parametrize("name", ["table1", "table3", "table4a", "table4b", "table4c"])
def test_every_figure_of_the_paper_is_shown(name: str) -> None:
    """At the paper's size; full fine-tuning (Table 1) is no row of a study."""
    study = load_study(name, "paper")
    assert study.paper is not None
    shown = set(Results(study, {}, []).paper.values())
    text = re.sub(r"(?m)^.*,full,.*\n|^#.*\n", "", study.paper.read_text(encoding="utf-8"))
    head, *rows = [line.split(",") for line in text.splitlines()]
    scored = [i for i, column in enumerate(head) if column in {"condpdiff", "original", "soup", "SST2", "STSB", "MRPC"}]
    assert {float(row[i]) for row in rows for i in scored if row[i]} <= shown


@pytest.mark.parametrize("path", sorted((ROOT / "docs/studies").glob("*.csv")), ids=lambda path: path.stem)
def test_the_committed_tables_are_those_of_the_committed_figures(path: Path) -> None:
    study, values = load_study(path.stem), {}
    for line in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        if line["value"]:
            of_run = values.setdefault((line["row"], line["seed"]), {})
            of_run.setdefault(line["task"], {})[line["arm"]] = float(line["value"])
    runs = {run.name: values.get((row.name, str(seed))) for row in study.rows for seed, run in row.runs.items()}
    text = table.markdown(Results(study, {name: experiment(name, v) for name, v in runs.items() if v}, []))
    shown = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    block = re.search(rf"<!-- study {path.stem} -->\n([^<]+)<!-- /study -->", shown)
    assert block is not None

    def rows(text: str) -> list[list[str]]:
        return [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("| ")]

    ours = [row for part in text.split("\n\n") if part.startswith("| row") for row in rows(part)]
    assert ours and all(row in rows(block[1]) for row in ours)
