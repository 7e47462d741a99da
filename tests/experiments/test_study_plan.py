"""Studies as data: every key is checked, every row's settings are known, and dvc.yaml says what they rerun."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from condpdiff.common.errors import UserError
from condpdiff.common.settings import PARAMS
from condpdiff.experiments.params import fingerprint, load_params
from condpdiff.experiments.study_plan import SIZES, Row, Study, about, load_study, pick_rows, study_names
from condpdiff.experiments.study_run import override, words
from tests.experiments.conftest import ROOT

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
NAMES = ["generator", "noise", "search", "seeds", "table1", "table2", "table3", "table4a", "table4b", "table4c"]
OF_GENERATOR = ["generator", "noise", "table3", "table4a", "table4b", "table4c"]
pytestmark = pytest.mark.usefixtures("repository")


def write(text: str) -> None:
    Path("configs/studies/own.yaml").write_text(text, encoding="utf-8")


def rerun(row: Row, study: Study) -> set[str]:
    """Stages of dvc.yaml that run again for a row's keys: those that read one, and all below them.

    Not below check-params, which reads all keys: what it writes depends on the task files alone.
    """
    assert study.shared is not None
    options = set(words(row.runs[0])) ^ set(words(study.shared.runs[0]))
    keys = {option.partition("=")[0].replace("++", "") for option in options if "=" in option}
    found = {stage for stage in STAGES if stage != "check-params" and any(reads(stage, key) for key in keys)}
    while below := {s for s in STAGES if s not in found and any(writes_for(other, s) for other in found)}:
        found |= below
    return found


def reads(stage: str, key: str) -> bool:
    file, _, dotted = key.rpartition(":")
    if not file:
        return any(dotted == k or dotted.startswith(f"{k}.") for k in STAGES[stage].get("params", []))
    settings = f"data/settings/${{item.task}}/{dotted.partition('.')[0]}.json"
    return any(dep in (settings, "data/settings") for dep in STAGES[stage]["deps"])


@cache
def writes_for(stage: str, other: str) -> bool:
    outs, deps = ([Path(path) for path in STAGES[s][k]] for s, k in ((stage, "outs"), (other, "deps")))
    return any(out == dep or out in dep.parents or dep in out.parents for out in outs for dep in deps)


def test_the_studies_are_there_and_say_what_they_are() -> None:
    assert study_names() == NAMES
    assert all(len(about(name)) > 20 for name in NAMES)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "generator"])  # 26 rows of one kind
def test_options_give_each_run_its_settings(name: str, size: str) -> None:
    """What DVC writes for `-S` reads back as the row: its own parser is asked, on the files themselves."""
    from dvc.utils.cli_parse import to_path_overrides
    from dvc.utils.hydra import apply_overrides, to_hydra_overrides

    before = {path: path.read_bytes() for path in [PARAMS, *Path("configs/tasks").glob("*.yaml")]}
    runs = [run for row in load_study(name, size).rows for run in row.runs]
    for run in runs:
        command, options = words(run)[:5], words(run)[5:]
        assert command == ["exp", "run", "--queue", "-n", run.name] and set(options[::2]) <= {"-S"}
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


def test_a_key_that_params_lacks_is_added() -> None:
    from dvc.utils.hydra import apply_overrides

    text = PARAMS.read_text(encoding="utf-8")
    PARAMS.write_text("\n".join(line for line in text.splitlines() if "doses:" not in line), encoding="utf-8")
    run = load_study("table3").rows[0].runs[0]
    apply_overrides(str(PARAMS), [word for word in words(run) if "=" in word])
    assert fingerprint(*load_params()) == run.settings


@pytest.mark.parametrize("size", SIZES)
def test_the_default_row_is_one_experiment_in_all_studies_of_the_generator(size: str) -> None:
    shared = [load_study(name, size).shared for name in OF_GENERATOR]
    assert len({tuple(run.settings for run in row.runs) for row in shared if row}) == 1 and None not in shared
    assert all([run.seed for run in row.runs] == [0, 1, 2] for row in shared if row)


def test_embedded_rows_are_the_papers_or_ours() -> None:
    rows = {name: [row.name for row in load_study(name).rows] for name in NAMES}
    assert rows["table3"] == ["n-1", "n-20", "n-75", "n-150"]
    assert rows["table4a"] == ["none", "batch", "task", "task_tensor", "task_scalar"]
    assert rows["table4b"] == ["one_hot", "learnable", "task_info", "task_info_few_shot"]
    assert rows["table4c"] == ["layers-0-1", "layers-0-2", "layers-0-3", "all"]
    assert rows["noise"] == ["xi-0", "xi-0.001", "xi-0.01", "xi-0.1", "xi-0.5"]
    assert len(load_study("table1", "paper").rows) == 10


def test_a_seed_is_in_the_name_unless_it_is_0() -> None:
    (row,) = load_study("seeds").rows
    assert [run.name for run in row.runs] == ["seeds-default", "seeds-default-s1", "seeds-default-s2"]
    assert row.runs[1].preset.params.ldm.seed == 1 and row.runs[1].preset.params.collect.seed == 0
    (row,) = load_study("seeds", "paper").rows
    assert row.runs[1].name == "seeds-paper-default-s1" and row.runs[1].preset.params.collect.seed == 1


@pytest.mark.parametrize("name", OF_GENERATOR)
def test_rows_rerun_what_they_must_and_no_more(name: str) -> None:
    before = {"prepare-data", "prepare-base", "finetune-collect", "score-zoo"}
    if name == "table4b":
        before |= {"normalize", "train-ae", "encode-latents"}
    for study in (load_study(name, size) for size in SIZES):
        for row in study.rows:
            assert rerun(row, study).isdisjoint(before)
            assert row.shared or name == "generator" or "train-ldm" in rerun(row, study)


def test_search_rows_fine_tune() -> None:
    study = load_study("search")
    assert all("finetune-collect" in rerun(row, study) for row in study.rows if not row.shared)


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
    write(f"claim: c\npaper: null\nsizes: {{embedded: {{preset: study-small}}}}\nrows: {{loud: {{{row}}}}}\n")
    with pytest.raises(UserError, match=says) as caught:
        load_study("own")
    assert "own.yaml" in str(caught.value) or "preset" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown study 'table5' \(did you mean 'table\d"):
        load_study("table5")
    with pytest.raises(UserError, match=r"study noise: unknown row 'xi-00' \(did you mean 'xi-0"):
        pick_rows(load_study("noise"), ["xi-00"])
    write("claim: c\npaper: null\nsizes: {paper: {preset: bert-base-r1}}\nrows: {a: {}}\n")
    with pytest.raises(UserError, match="own.yaml: sizes: found paper, asked for 'embedded'"):
        load_study("own")
