"""A study's table out of made-up experiments: arms, spread over seeds, differences, references, the paper's figures."""

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from condpdiff.experiments import study_results as results
from condpdiff.experiments import study_table as table
from condpdiff.experiments.study_experiments import Experiment
from condpdiff.experiments.study_plan import load_study, study_names
from condpdiff.experiments.study_results import Results, paper_values

ROOT = Path(__file__).parents[2]
Metrics = Callable[[str, int], dict[str, Any] | None]


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results, "lock_at", lambda commit: {})
    monkeypatch.setattr("condpdiff.experiments.study_experiments.lock_at", lambda commit: {})


def made(name: str, metrics: Metrics, size: str = "embedded") -> Results:
    """Experiments of the runs for which `metrics(row, seed)` has values, the same for every task."""
    study, found = load_study(name, size), {}
    for row in study.rows:
        for run in row.runs:
            if (arms := metrics(row.name, run.seed)) is not None:
                values: dict[str, Any] = dict.fromkeys([*run.preset.tasks, "average"], arms)
                values["tasks_not_learned"] = 0
                found[run.name] = Experiment(run.name, "ref", "commit", "b" * 40, values)
    return Results(study, found, [])


def lines(text: str, what: str = "") -> dict[str, list[str]]:
    """Rows of the first Markdown table whose caption begins with `what`."""
    (block,) = re.findall(rf"((?:\|.*\n)+)\n{what}", text)[:1]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()]
    return {first: rest for first, *rest in cells}


def test_the_mean_over_candidates_stands_before_the_selected_one() -> None:
    arms = {"condpdiff": 81.0, "condpdiff_mean": 80.0, "original": 79.0, "original_mean": 78.0, "soup": 80.5}
    text = table.markdown(made("noise", lambda row, seed: arms))
    assert text.index("Mean over all generated candidates") < text.index("Selected candidate")
    assert lines(text, "Mean over all")["xi-0.001: original_mean"][1] == "78.00"
    assert lines(text, "Selected")["xi-0.001: original"][1] == "79.00"


def test_without_means_the_selected_candidate_stands_alone() -> None:
    text = table.markdown(made("noise", lambda row, seed: {"condpdiff": 81.0, "original": 79.0, "soup": 80.5}))
    assert "Mean over all" not in text


def test_differences_are_from_the_shared_settings_and_in_units_of_their_seeds() -> None:
    def metrics(row: str, seed: int) -> dict[str, float]:
        return {"condpdiff": 80.0 + 2 * (seed - 1) if row == "n-150" else 75.0, "original": 79.0, "soup": 80.5}

    found = lines(table.markdown(made("table3", metrics)))
    assert found["row"][5:7] == ["difference", "in seeds' std"]
    assert found["n-150"][0] == "3" and found["n-150"][4:7] == ["80.00 ± 2.00", "–", "–"]
    assert found["n-1"][0] == "1" and found["n-1"][4:7] == ["75.00", "−5.00", "−2.50"]
    assert found["n-1"][7:11] == ["90.23", "80.71", "82.71", "84.55"]
    assert found["n-1"][11] == "−2.34"  # 84.55 - 86.89, N = 200
    assert found["n-20"][7:12] == ["–"] * 5


def test_the_caption_says_what_seeds_alone_may_do_and_what_stands_beside() -> None:
    arms = {"condpdiff": 80.0, "condpdiff_mean": 79.0, "original": 79.0, "soup": 80.5}
    text = table.markdown(made("table3", lambda row, seed: arms))
    assert text.count("to 5.0 of these standard deviations on either side (Student's t of 3 seeds)") == 2
    assert text.count("original is the last checkpoint alone.") == 2
    assert text.count("The paper's tasks and model are its own; its figures are of selected candidates.") == 1
    assert text.count("The paper's tasks and model are its own.") == 1
    text = table.markdown(made("table3", lambda row, seed: arms, "paper"))
    assert "last checkpoint alone" not in text and "tasks and model" not in text
    assert text.count("The paper's figures are of selected candidates.") == 1


def test_a_row_has_reference_lines_of_its_own_where_they_differ() -> None:
    def metrics(row: str, seed: int) -> dict[str, float]:
        return {"condpdiff": 80.0, "original": 79.0, "soup": 70.0 if row == "n-1" else 80.5}

    found = lines(table.markdown(made("table3", metrics)))
    references = {row: cells[1] for row, cells in found.items() if ": " in row}
    assert references == {"n-1: soup": "70.00", "n-150: original": "79.00", "n-150: soup": "80.50"}


def test_nothing_has_to_be_there() -> None:
    for name in study_names():
        for size in ("embedded", "paper"):
            text = table.markdown(made(name, lambda row, seed: None, size))
            assert "(missing)" in text and f"`condpdiff study run {name}" in text
            assert table.html(made(name, lambda row, seed: None, size)).startswith("<!doctype html>")


def test_rows_of_several_models_have_no_difference_and_all_references() -> None:
    arms = {"condpdiff": 80.0, "original": 79.0, "soup": 80.5}
    found = lines(table.markdown(made("table1", lambda row, seed: arms, "paper")))
    assert "difference" not in found["row"]
    assert found["deberta-r4: soup"][-1] == "80.70" and found["deberta-r4: soup"][7] == "80.50"


def test_styles_say_that_lower_is_better() -> None:
    text = table.markdown(made("table2", lambda row, seed: {"condpdiff": 12.0, "original": 11.0, "soup": 13.0}))
    assert "lower is better" in text and "percent" not in text and "charcoal (fd_lite0)" in text
    assert lines(text)["styles"][-1] == "32.94"


def test_of_a_style_s_arm_the_selected_candidate_is_shown() -> None:
    def metrics(row: str, seed: int) -> dict[str, Any]:
        return {"condpdiff": {"selected": 12.5, "mean": 14.0}, "soup": {"selected": 13.0}, "condpdiff_mean": 14.0}

    found = made("table2", metrics)
    text = table.markdown(found)
    assert lines(text, "Selected")["styles"][1] == "12.50" and lines(text, "Mean over all")["styles"][1] == "14.00"
    assert "styles,0,condpdiff,charcoal,12.5," in results.long_csv(found)


@pytest.mark.parametrize("name", ["table1", "table2", "table3", "table4a", "table4b", "table4c"])
def test_every_figure_of_the_paper_is_shown(name: str) -> None:
    """At the paper's size; full fine-tuning (Table 1) and no LoRA (Table 2) are no rows or arms of a study."""
    study = load_study(name, "paper")
    assert study.paper is not None
    shown = set(paper_values(study).values())
    text = re.sub(r"(?m)^.*,full,.*\n|^#.*\n", "", study.paper.read_text(encoding="utf-8"))
    head, *rows = [line.split(",") for line in text.splitlines()]
    scored = [i for i, column in enumerate(head) if column in {"condpdiff", "original", "soup", "SST2", "STSB", "MRPC"}]
    assert {float(row[i]) for row in rows for i in scored if row[i]} <= shown


def test_the_page_of_studies_has_a_place_for_each() -> None:
    page = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"<!-- study (\w+) -->\n[^<]+<!-- /study -->", page)) == study_names()


@pytest.mark.parametrize("path", sorted((ROOT / "docs/studies").glob("*.csv")), ids=lambda path: path.stem)
def test_the_committed_tables_are_those_of_the_committed_figures(path: Path) -> None:
    study, values = load_study(path.stem), {}
    for line in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        if line["value"]:
            of_run = values.setdefault((line["row"], line["seed"]), {})
            of_run.setdefault(line["task"], {})[line["arm"]] = float(line["value"])
    runs = {run.name: values.get((row.name, str(run.seed))) for row in study.rows for run in row.runs}
    found = {name: Experiment(name, "ref", "commit", "b" * 40, arms) for name, arms in runs.items() if arms}
    text = table.markdown(Results(study, found, []))
    shown = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    block = re.search(rf"<!-- study {path.stem} -->\n([^<]+)<!-- /study -->", shown)
    assert block is not None
    tables = [part for part in text.split("\n\n") if part.startswith("| row")]
    assert tables and all(part in block[1] for part in tables)
