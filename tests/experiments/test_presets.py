"""Presets change the keys that they name, and nothing else of params.yaml."""

from pathlib import Path

import pytest

from condpdiff.common.settings import read_yaml
from condpdiff.experiments.params import load_params
from condpdiff.experiments.presets import about, apply, changes, load_preset, preset_names
from tests.experiments.conftest import ROOT
from tests.messages import message_of

PARAMS = Path("params.yaml")
pytestmark = pytest.mark.usefixtures("repository")


def test_shipped_params_are_the_default_preset() -> None:
    """If this fails: either a preset is applied just now, or a default changed in one of the two files only."""
    assert read_yaml(ROOT / "params.yaml") == read_yaml(Path("configs/default.yaml"))


def test_every_preset_makes_a_valid_run_whatever_was_there_and_default_undoes_it_to_the_byte() -> None:
    before = PARAMS.read_bytes()
    for name in preset_names():
        preset = load_preset(name)
        apply(preset)
        assert load_params(PARAMS) == (preset.params, preset.tasks)
        assert changes(preset) == []
    apply(load_preset("default"))
    assert PARAMS.read_bytes() == before
    collect = load_preset("bert-base-r8").params.collect  # any rank may stand behind a name
    assert (collect.rank, collect.alpha) == (8, 8.0)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_preset_names_no_key_that_equals_the_default(path: Path) -> None:
    if path.stem == "default":
        return
    default, own = read_yaml(Path("configs/default.yaml")), read_yaml(path)
    for key, value in own.items():
        same = [k for k, v in value.items() if v == default[key][k]] if isinstance(value, dict) else []
        assert not same and value != default[key]


def test_lists_in_lines_anchors_braces_and_numbers_as_written_survive() -> None:
    text = PARAMS.read_text()
    tasks = text[text.index("tasks: ") : text.index("\n", text.index("tasks: "))]
    text = text.replace(tasks, "tasks: # mine\n- amazon # the second\n- nyt").replace("  lr: 5.0e-4", "  lr: 0.50E-3")
    text = text.replace("  seed: 0", "  seed: &s 0", 1).replace("  seed: 0", "  seed: *s", 1)
    report = text[text.index("report:") :]
    text = text.replace(report, "report: {perplexity: 9.0, learned_margin: 2.0, seed: 0} # here\n")
    PARAMS.write_text(text)
    apply(load_preset("smoke"))
    found = PARAMS.read_text()
    assert load_params(PARAMS)[0] == load_preset("smoke").params
    assert "tasks: # mine\n- movies\n- tweets\n\ndata:" in found
    assert "  lr: 0.50E-3" in found and "  seed: &s 0" in found and "  seed: *s" in found
    assert f"report: {{perplexity: {load_preset('smoke').params.report.perplexity:g}, " in found and "# here" in found


def test_missing_keys_empty_keys_and_missing_sections_are_filled() -> None:
    lines = PARAMS.read_text().partition("report:")[0].rstrip().splitlines(keepends=True)
    lines = [line.replace("null", "") if line.startswith("  steps: null") else line for line in lines]
    PARAMS.write_text("".join(line for line in lines if not line.startswith("  max_train:")))
    apply(load_preset("smoke"))
    assert load_params(PARAMS)[0] == load_preset("smoke").params


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("  max_train:", "  max_trian:", "unknown key 'data.max_trian' (did you mean 'max_train'?)"),
        ("  max_train: 4000", "  max_train: 4000\n  max_train: 1", "not valid YAML: found duplicate key"),
        ("report:", "report: [", "not valid YAML"),
        ("report:", "report: 1\nreport_:", "report: found 1, allowed: a mapping"),
    ],
)
def test_params_that_cannot_be_changed_stay_as_they_are(old: str, new: str, says: str) -> None:
    PARAMS.write_text(PARAMS.read_text().replace(old, new))
    before = PARAMS.read_bytes()
    assert says in message_of(apply, load_preset("smoke"))
    assert PARAMS.read_bytes() == before


def test_own_file_in_configs_is_a_preset_and_a_mistake_names_it() -> None:
    own = Path("configs/own.yaml")
    own.write_text("# Louder noise.\nae:\n  noise: 1e-05\n")
    assert "own" in preset_names() and about("own") == "Louder noise"
    assert [(c.key, c.old, c.new) for c in apply(load_preset("own"))] == [("ae.noise", "0.001", "1e-05")]
    assert load_params(PARAMS)[0].ae.noise == 1e-5
    own.write_text("ae:\n  noise: 0.00001\n")
    assert changes(load_preset("own")) == []  # YAML 1.1 reads 1e-05 as a string
    own.write_text("ae:\n  nois: 0.1\n")
    assert message_of(load_preset, "own").startswith("configs/own.yaml: unknown key 'ae.nois' (did you mean 'noise'?)")
