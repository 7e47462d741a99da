"""Studies as data: every key is checked, every row's settings are known, and dvc.yaml says what they rerun."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from condpdiff.cli import Size
from condpdiff.common.settings import PARAMS
from condpdiff.experiments.launch import words
from condpdiff.experiments.params import fingerprint, load_params
from condpdiff.experiments.presets import override
from condpdiff.experiments.study_plan import about, load_study, pick_rows, study_names
from tests.messages import message_of

FILE = "a task's file"
OWN = Path("configs/studies/own.yaml")
NAMES = ["frame", "generator", "noise", "search", "seeds", "styles"]
NAMES += [f"table{n}" for n in ("1", "3", "4a", "4b", "4c")]
OF_GENERATOR = ["generator", "noise", "table3", "table4a", "table4b", "table4c"]
pytestmark = pytest.mark.usefixtures("repository")


@pytest.mark.parametrize("size", Size)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "generator"])  # 26 rows of one kind
def test_options_give_each_run_its_settings(name: str, size: str) -> None:
    """What DVC writes for `-S` reads back as the row: its own parser is asked, on the files themselves."""
    from dvc.utils.cli_parse import to_path_overrides
    from dvc.utils.hydra import apply_overrides, to_hydra_overrides

    before = {path: path.read_bytes() for path in [PARAMS, *Path("configs").glob("*/*.yaml")]}
    runs = [run for row in load_study(name, size).rows for run in row.runs.values()]
    for run in runs:
        command, options = words(run)[:6], words(run)[6:]
        assert command == ["dvc", "exp", "run", "--temp", "-n", run.name] and set(options[::2]) <= {"-S"}
        for path, overrides in to_path_overrides(options[1::2]).items():
            assert not any(o.is_sweep_override() for o in to_hydra_overrides(overrides))
            apply_overrides(path, overrides)
        assert fingerprint(*load_params()) == run.settings
        for path, content in before.items():
            path.write_bytes(content)
    assert len({run.name for run in runs}) == len(runs)


VALUES = [None, 1, 0.001, "1e-05", [0, 1], "all", "a b", "it's", "a, b", "c:\\d\\", "null", "local-dir:a/b", {"a": [1]}]


@pytest.mark.parametrize("value", VALUES)
def test_any_value_survives_dvc(value: Any) -> None:
    from dvc.utils.hydra import apply_overrides

    PARAMS.write_text("a: {b: 0}\n", encoding="utf-8")
    apply_overrides(str(PARAMS), [f"++a.b={override(value)}"])
    assert yaml.safe_load(PARAMS.read_text(encoding="utf-8"))["a"]["b"] == value


@pytest.mark.parametrize("size", Size)
def test_the_default_row_is_one_experiment_in_all_studies_of_the_generator(size: str) -> None:
    shared = [load_study(name, size).shared for name in OF_GENERATOR]
    assert len({tuple(run.settings for run in row.runs.values()) for row in shared if row}) == 1 and None not in shared
    assert all([*row.runs] == [0, 1, 2] for row in shared if row)


def test_the_studies_are_there_and_say_what_they_are() -> None:
    assert study_names() == NAMES and all(len(about(name)) > 20 for name in NAMES)
    assert [row.name for row in load_study("table3").rows] == ["n-1", "n-20", "n-75", "n-150"]
    assert len(load_study("table1", "paper").rows) == 10


def test_a_seed_is_in_the_name_unless_it_is_0() -> None:
    (row,) = load_study("seeds").rows
    assert [run.name for run in row.runs.values()] == ["seeds-default", "seeds-default-s1", "seeds-default-s2"]
    assert row.runs[1].params.ldm.seed == 1 and row.runs[1].params.collect.seed == 0
    (row,) = load_study("seeds", "paper").rows
    assert row.runs[1].name == "seeds-paper-default-s1" and row.runs[1].params.collect.seed == 1


@pytest.mark.parametrize("name", [*OF_GENERATOR, "search"])
def test_rows_change_sections_of_the_stages_that_they_are_about(name: str) -> None:
    """What a section's keys rerun, tests/test_dag.py tells: those of `OF_GENERATOR` leave every zoo alone."""
    allowed = {"normalize", "ae", "condition", "ldm", "sample"} if name in OF_GENERATOR else {"collect", "base", FILE}
    allowed = {"condition", "ldm", "ae", "sample"} if name == "table4b" else allowed
    for study in (load_study(name, size) for size in Size):
        assert study.shared is not None
        for row in (row for row in study.rows if row is not study.shared):
            options = {word for word in set(words(row.preset)) ^ set(words(study.shared.preset)) if "=" in word}
            assert {FILE if ":" in word else word.lstrip("+").partition(".")[0] for word in options} <= allowed


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("keys: {ae.nois: 0.1}", r"rows.loud: unknown key 'ae.nois' \(did you mean 'noise'\?\)"),
        ("keys: {ae.noise: -1}", "rows.loud: ae.noise: found -1, allowed: "),
        ("keys: {'configs/tasks/movies.yaml:finetune.rl': 1}", "rows.loud: configs/tasks/movies.yaml: unknown key"),
        ("keys: {'configs/tasks/nyt.yaml:finetune.lr': 1}", "found file 'configs/tasks/nyt.yaml', allowed: .*movies"),
        ("preset: smok", r"unknown preset 'smok' \(did you mean 'smoke'\?\)"),
        ("key: {}", r"unknown key 'rows.loud.key' \(did you mean 'keys'\?\)"),
        ("seeds: []", "rows.loud.seeds: found"),
        ("keys: {ldm.seed: 3}", "rows.loud: ldm.seed: found a key that `seeds` sets"),
    ],
)
def test_a_mistake_names_file_row_and_key(row: str, says: str) -> None:
    OWN.write_text(f"claim: c\npaper: null\nsizes: {{embedded: {{preset: study-small}}}}\nrows: {{loud: {{{row}}}}}\n")
    message = message_of(load_study, "own")
    assert re.search(says, message) and ("own.yaml" in message or "preset" in message)


def test_unknown_names_are_told_with_the_nearest() -> None:
    assert "unknown study 'table5' (did you mean 'table" in message_of(load_study, "table5")
    noise = load_study("noise")
    assert "study noise: unknown row 'xi-00' (did you mean 'xi-0" in message_of(pick_rows, noise, ["xi-00"])
    OWN.write_text("claim: c\npaper: null\nsizes: {paper: {preset: bert-base-r1}}\nrows: {a: {}}\n")
    assert message_of(load_study, "own").endswith("own.yaml: sizes: found paper, asked for 'embedded'")
