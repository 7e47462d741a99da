"""Presets change the keys that they name, and nothing else of params.yaml."""

import shutil
from pathlib import Path

import pytest
import yaml

from condpdiff.common.errors import UserError
from condpdiff.common.settings import read_yaml
from condpdiff.experiments.params import load_params
from condpdiff.experiments.presets import about, apply, as_dvc_options, changes, load_preset, preset_names

ROOT = Path(__file__).parent.parent.parent
PARAMS = Path("params.yaml")


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with configs/ and the default params.yaml, in the layout of the real one."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    apply(load_preset("default"))  # the real one may hold another preset just now


def test_shipped_params_are_the_default_preset() -> None:
    """If this fails: either a preset is applied just now, or a default changed in one of the two files only."""
    assert read_yaml(ROOT / "params.yaml") == read_yaml(Path("configs/default.yaml"))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_makes_a_valid_run_and_default_undoes_it(name: str) -> None:
    before = PARAMS.read_bytes()
    preset = load_preset(name)
    apply(preset)
    assert load_params(PARAMS) == (preset.params, preset.tasks)
    assert changes(preset) == []
    apply(load_preset("default"))
    assert PARAMS.read_bytes() == before


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_preset_names_no_key_that_equals_the_default(path: Path) -> None:
    if path.stem == "default":
        return
    default, own = read_yaml(Path("configs/default.yaml")), read_yaml(path)
    for key, value in own.items():
        same = [k for k, v in value.items() if v == default[key][k]] if isinstance(value, dict) else []
        assert not same and value != default[key]


def test_comments_order_and_other_keys_stay() -> None:
    before = PARAMS.read_text().splitlines()
    done = apply(load_preset("smoke"))
    after = PARAMS.read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == len(done)
    for old, new in changed:
        assert old.partition(":")[0] == new.partition(":")[0]
        assert old.partition(" #")[2] == new.partition(" #")[2]


def test_only_the_preset_and_the_defaults_count_not_what_was_there() -> None:
    apply(load_preset("bert-base-r4"))
    apply(load_preset("smoke"))
    assert load_params(PARAMS)[0] == load_preset("smoke").params


def test_rank_suffix_sets_rank_and_alpha() -> None:
    collect = load_preset("bert-base-r8").params.collect
    assert (collect.rank, collect.alpha) == (8, 8.0)


def test_line_ends_and_hand_formatting_survive() -> None:
    text = PARAMS.read_text().replace("  lr: 2.0e-3", "  lr:   0.002   # mine").replace("\n", "\r\n")
    PARAMS.write_bytes(text.encode())
    apply(load_preset("smoke"))
    apply(load_preset("default"))
    assert PARAMS.read_bytes() == text.encode()


def test_list_in_lines_of_its_own_is_replaced_and_its_key_s_comment_stays() -> None:
    text = PARAMS.read_text()
    start = text.index("tasks: ")
    end = text.index("\n", start)
    PARAMS.write_text(f"{text[:start]}tasks: # mine\n- amazon\n- nyt{text[end:]}")
    apply(load_preset("smoke"))
    assert "\ntasks: [movies, tweets] # mine\n\ndata:" in PARAMS.read_text()


def test_missing_and_empty_keys_are_filled() -> None:
    lines = PARAMS.read_text().splitlines(keepends=True)
    lines = [line.replace("null", "") if line.startswith("  steps: null") else line for line in lines]
    PARAMS.write_text("".join(line for line in lines if not line.startswith("  max_train:")))
    apply(load_preset("smoke"))
    params = load_params(PARAMS)[0]
    assert (params.data.max_train, params.collect.steps) == (400, 30)


def test_missing_section_is_added() -> None:
    text = PARAMS.read_text()
    PARAMS.write_text(text[: text.index("report:")].rstrip())
    apply(load_preset("default"))
    assert load_params(PARAMS)[0] == load_preset("default").params


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("  max_train:", "  max_trian:", "unknown key 'data.max_trian' (did you mean 'max_train'?)"),
        ("  max_train: 4000", "  max_train: &n 4000\n  seed: *n #", "cannot be changed in place"),
        ("report:", "report: [", "not valid YAML"),
    ],
)
def test_params_that_cannot_be_changed_stay_as_they_are(old: str, new: str, says: str) -> None:
    PARAMS.write_text(PARAMS.read_text().replace(old, new))
    before = PARAMS.read_bytes()
    with pytest.raises(UserError) as caught:
        apply(load_preset("smoke"))
    assert says in str(caught.value)
    assert PARAMS.read_bytes() == before
    assert sorted(path.name for path in Path().iterdir()) == ["configs", "params.yaml"]


def test_interrupted_write_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*args: object) -> None:
        raise OSError(28, "No space left on device")

    before = PARAMS.read_bytes()
    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        apply(load_preset("smoke"))
    assert PARAMS.read_bytes() == before
    assert sorted(path.name for path in Path().iterdir()) == ["configs", "params.yaml"]


@pytest.mark.parametrize(("name", "near"), [("smok", "smoke"), ("bert-bas-r4", "bert-base-r4"), ("models/x", None)])
def test_unknown_preset_names_the_nearest(name: str, near: str | None) -> None:
    with pytest.raises(UserError) as caught:
        load_preset(name)
    assert f"unknown preset {name!r}" + (f" (did you mean {near!r}?)" if near else ";") in str(caught.value)


def test_mistake_in_a_preset_names_its_file() -> None:
    Path("configs/own.yaml").write_text("ae:\n  nois: 0.1\n")
    with pytest.raises(UserError, match=r"^configs/own.yaml: unknown key 'ae.nois' \(did you mean 'noise'\?\)"):
        load_preset("own")


def test_own_file_in_configs_is_a_preset() -> None:
    Path("configs/own.yaml").write_text("# Louder noise.\nae:\n  noise: 1e-05\n")
    assert "own" in preset_names() and about("own") == "Louder noise"
    assert [(c.key, c.old, c.new) for c in apply(load_preset("own"))] == [("ae.noise", "0.001", "1e-05")]
    assert load_params(PARAMS)[0].ae.noise == 1e-5


@pytest.mark.parametrize("name", ["smoke", "bert-base-r16"])
def test_dvc_options_make_the_same_run(name: str) -> None:
    import shlex

    from dvc.utils.hydra import apply_overrides

    preset = load_preset(name)
    words = shlex.split(as_dvc_options(changes(preset)))
    assert words[:3] == ["dvc", "exp", "run"] and set(words[3::2]) == {"-S"}
    apply_overrides("params.yaml", words[4::2])
    assert load_params(PARAMS)[0] == preset.params
    apply(load_preset("default"))
    assert yaml.safe_load(PARAMS.read_text()) == read_yaml(Path("configs/default.yaml"))
