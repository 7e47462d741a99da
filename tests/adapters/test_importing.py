"""What others trained becomes a zoo: every weight in its place, and what does not fit is named; and is a task's own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from condpdiff.adapters.importing import import_zoo
from condpdiff.adapters.place import place
from condpdiff.common.files import read_json, read_tensors, write_json
from condpdiff.common.task import SETTINGS, save_sections
from condpdiff.experiments.params import fingerprint, load_params
from condpdiff.text.task import load_task
from condpdiff.zoo.checkpoints import THETA, load_zoo, unflatten
from tests.adapters.conftest import ROOT, peft_model, randomise, same, save_adapters, style_transformer
from tests.messages import message_of
from tests.stand_ins import make_collect

SOURCE, OUT, WEIGHTS = Path("mine"), Path("inputs/films"), "adapter_model.safetensors"
FILE = Path("configs/tasks/films.yaml")
TAIL = "; --skip-odd leaves such adapters out"


def bring(source: Path = SOURCE, task: str = "films", skip_odd: bool = False) -> list[str]:
    said: list[str] = []
    import_zoo(source, task, skip_odd, said.append)
    return said


def refusal(source: Path = SOURCE, task: str = "films", **how: bool) -> str:
    line = message_of(bring, source, task, **how)
    assert not list(Path("inputs").iterdir())
    return line


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_folder_of_peft_adapters_is_a_zoo_in_the_order_of_their_names(text_run: None, dtype: torch.dtype) -> None:
    models = save_adapters(SOURCE, 11)  # run-10 comes after run-9
    config(base_model_name_or_path="someone/tiny")(SOURCE / "run-1")  # the hub's id of models/tiny
    for path in SOURCE.rglob("*.safetensors"):
        save_file({key: tensor.to(dtype) for key, tensor in load_file(path).items()}, path)
    said, zoo = bring(), load_zoo(OUT)
    assert len(zoo.theta) == 11 and zoo.theta.dtype == torch.float32
    for row, model in zip(zoo.theta, models, strict=True):
        state = {key: tensor.to(dtype).float() for key, tensor in get_peft_model_state_dict(model).items()}
        same(unflatten(row, zoo.layout) | zoo.head, state)
    assert said == [
        f"inputs/films: 11 checkpoints of {zoo.layout.K:,} weights, run-1 to run-11",
        "now set `zoo: inputs/films` in configs/tasks/films.yaml, and track inputs/films with `dvc add` or `git add`",
    ]


def test_a_trainer_s_checkpoints_come_in_the_order_of_their_steps_and_get_the_mean_head(text_run: None) -> None:
    save_adapters(SOURCE, 3, names="checkpoint-{}0")
    for step in (10, 20, 30):
        tensors(BIAS, torch.full((2,), float(step)))(SOURCE / f"checkpoint-{step}")
    shutil.copytree(SOURCE / "checkpoint-30", SOURCE, dirs_exist_ok=True)  # the Trainer writes the last state again
    said, zoo = bring(), load_zoo(OUT)
    assert read_tensors(OUT / THETA)["steps"].tolist() == [10, 20, 30]
    last = load_file(SOURCE / WEIGHTS)
    assert all(torch.equal(tensor, last[key]) for key, tensor in unflatten(zoo.theta[2], zoo.layout).items())
    assert said[0].startswith("the adapters' heads differ, by up to 20: ") and zoo.head[BIAS].tolist() == [20, 20]


def test_a_stacked_file_and_a_list_give_the_same_zoo(text_run: None) -> None:
    save_adapters(SOURCE, 3)
    bring()
    shutil.copytree(OUT, "stacked")
    lines = [{"id": name, "description": f"the {name}", "path": f"mine/run-{i}"} for i, name in enumerate("abc", 1)]
    Path("zoo.jsonl").write_text("\n".join(map(json.dumps, lines)))
    first = {path.name: path.read_bytes() for path in OUT.iterdir()}
    for source in (Path("stacked"), Path("stacked/theta.safetensors"), Path("zoo.jsonl")):
        bring(source)
        assert [path.name for path in OUT.iterdir() if path.read_bytes() != first[path.name]] == ["adapters.json"]
    assert read_json(OUT / "adapters.json")[1] == {"id": "b", "description": "the b"}


def test_adapters_of_any_name_are_found(text_run: None) -> None:
    """PEFT gives them a folder of the name; others leave the name in the keys."""
    (one,) = save_adapters(SOURCE, 1)
    model = peft_model()
    model.add_adapter("mood", model.peft_config["default"])
    randomise(model, 1).save_pretrained(SOURCE / "run-2", selected_adapters=["mood"])
    assert (SOURCE / "run-2/mood/adapter_config.json").is_file()
    shutil.copytree(SOURCE / "run-1", SOURCE / "run-3")
    state = {key.replace(".default.", ".mine."): t for key, t in one.state_dict().items() if ".lora_" in key}
    save_file(load_file(SOURCE / "run-1" / WEIGHTS) | state, SOURCE / "run-3" / WEIGHTS)
    bring()
    theta = load_zoo(OUT).theta
    assert len(theta) == 3 and torch.equal(theta[0], theta[2])


def config(**changes: object) -> Callable[[Path], Any]:
    file = "adapter_config.json"
    return lambda folder: write_json(folder / file, read_json(folder / file) | changes)


def tensors(key: str, value: Tensor | None = None) -> Callable[[Path], Any]:
    """Another tensor under a key, or none."""

    def change(folder: Path) -> None:
        found = load_file(folder / WEIGHTS) | ({} if value is None else {key: value})
        save_file({k: t for k, t in found.items() if k != key or value is not None}, folder / WEIGHTS)

    return change


A, B = (f"base_model.model.bert.encoder.layer.0.attention.self.query.lora_{m}.weight" for m in "AB")
BIAS = "base_model.model.classifier.bias"
ODD: list[tuple[Callable[[Path], object], str]] = [
    (config(use_rslora=True), "mine/run-2/adapter_config.json: use_rslora: found True, allowed: a LoRA without it"),
    (config(use_dora=True), "use_dora: found True"),
    (config(bias="lora_only"), "bias: found 'lora_only'"),
    (config(rank_pattern={"query": 4}), "rank_pattern: found {'query': 4}"),
    (config(alpha_pattern={"query": 4}), "alpha_pattern: found"),
    (config(init_lora_weights="pissa"), "init_lora_weights: found 'pissa', which changes the base model"),
    (config(peft_type="IA3"), "peft_type: found 'IA3', allowed: LORA"),
    (config(of_later_days=1), "of_later_days: found 1"),
    (config(base_model_name_or_path="google/bert"), "run-2: base model: found google/bert, allowed: models/tiny"),
    (config(lora_alpha=8), "run-2: alpha: found 8, allowed: 4 (params.yaml: collect.alpha)"),
    (config(r=8), "found matrices of rank 2, allowed: 8 for all"),
    (tensors(A, torch.ones(2, 5)), f"{A}: found shape [2, 5], allowed: [2, 16]"),
    (tensors(B), f"no tensor {B}, which the run needs (params.yaml: collect.target_modules)"),
    (tensors(BIAS), f"no tensor {BIAS}, which the run needs (params.yaml: base: the head"),
    (tensors("word.lora_embedding_A", torch.ones(2)), "word.lora_embedding_A: outside"),
    (tensors("x", torch.ones(2).long()), "x: found torch.int64, allowed: float32"),
    (tensors(A, torch.full((2, 16), torch.nan)), f"{A}: holds values that are no numbers"),
    (lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"), "adapter_model.bin: a pickle, which"),
    (lambda folder: (folder / WEIGHTS).write_bytes(b"x"), "not a readable safetensors file"),
]


def test_an_odd_adapter_is_named_and_refused_or_left_out(text_run: None) -> None:
    save_adapters(SOURCE, 3)
    shutil.copytree(SOURCE / "run-2", "whole")
    for change, says in ODD:
        shutil.rmtree(SOURCE / "run-2")
        shutil.copytree("whole", SOURCE / "run-2")
        change(SOURCE / "run-2")
        line = refusal()
        assert says in line and line.endswith(TAIL)
    said = bring(skip_odd=True)
    assert said[0] == f"skipped: {line.removesuffix(TAIL)}"
    assert said[2] == "params.yaml: collect.max_checkpoints is 3: set it, and normalize.n_checkpoints, to at most 2"
    assert [item["id"] for item in read_json(OUT / "adapters.json")] == ["run-1", "run-3"]


def test_what_is_no_zoo_of_the_run_is_one_line(text_run: None) -> None:
    assert refusal().startswith("mine: no such source, allowed: a folder of adapters, ")
    SOURCE.mkdir()
    assert refusal().startswith("mine: no adapter in its folders, allowed: ")
    Path("zoo.jsonl").write_text('{"id": "a"}\n')
    assert refusal(Path("zoo.jsonl")) == "zoo.jsonl: line 1: allowed: {id, description, path} in JSON"
    for settings, says in (
        ({"r": 4}, "run-1: rank: found 4, allowed: 2 (params.yaml: collect.rank)"),
        ({"target_modules": ["query"]}, "no tensor base_model.model.bert.encoder.layer.0.attention.self.key"),
        ({"target_modules": "all-linear"}, "outside the run's modules (params.yaml: collect.target_modules)"),
    ):
        save_adapters(SOURCE, 1, **settings)
        assert says in refusal()
    assert refusal(skip_odd=True) == "mine: none of its adapters fits params.yaml"
    assert "unknown task 'filmz' (did you mean 'films'?)" in refusal(task="filmz")
    save_file({"theta": torch.ones(3, 7)}, SOURCE / THETA)
    (SOURCE / "layout.json").write_text("[]")
    assert refusal().startswith("mine/layout.json: not a layout: a list of key, shape, offset, layer, module")
    Path("data/base/source.json").unlink()
    assert refusal() == "params.yaml: base.name: 'models/tiny' is not here yet; run `dvc repro prepare-base` first"


def kohya(bare: dict[str, Tensor], alpha: float = 4, prefix: str = "lora_unet_") -> dict[str, Tensor]:
    """As kohya's scripts name them."""
    found = {}
    for key, tensor in bare.items():
        module, _, kind = key.partition(".lora_")
        name = prefix + module.replace(".", "_")
        found[f"{name}.lora_{'down' if kind[0] == 'A' else 'up'}.weight"] = tensor
        found[f"{name}.alpha"] = torch.tensor(float(alpha))
    return found


def test_files_of_diffusers_and_kohya_are_one_zoo(style_run: None) -> None:
    style_transformer(1).save_lora_adapter(SOURCE / "run-1")
    bare = load_file(SOURCE / "run-1/pytorch_lora_weights.safetensors")
    old = {k.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): t for k, t in bare.items()}
    alphas = {f"{key.partition('.lora')[0]}.alpha": torch.tensor(4.0) for key in old}
    save_file({f"unet.{key}": t for key, t in (old | alphas).items()}, SOURCE / "run-2.safetensors")
    save_file(kohya(bare), SOURCE / "run-3.safetensors")
    for i in (4, 5, 6):
        save_file(kohya(bare, prefix="lora_transformer_"), SOURCE / f"run-{i}.safetensors")
    bring(task="waves")
    theta, zoo = read_tensors(Path("inputs/waves") / THETA)["theta"], load_zoo(Path("inputs/waves/0"))
    assert theta.shape[:2] == (6, 1) and (theta == theta[0]).all() and not zoo.head
    same(unflatten(zoo.theta[0], zoo.layout), {f"base_model.model.{key}": tensor for key, tensor in bare.items()})


def test_files_of_other_models_and_kinds_are_refused_by_name(style_run: None) -> None:
    style_transformer(1).save_lora_adapter("one")
    bare = load_file("one/pytorch_lora_weights.safetensors")
    SOURCE.mkdir()
    for found, says in (
        (kohya(bare, 2), "lora.safetensors: alpha: found 2, allowed: 4 (params.yaml: collect.alpha)"),
        (kohya(bare, prefix="lora_te_"), "base_model.model.text_encoder.transformer.blocks.0.attn1.to.k.lora_A.weight"),
        ({"lora_unet_x.hada_w1_a": torch.ones(2)}, "keys that diffusers can't convert"),
        ({f"double_blocks.0.{key}": tensor for key, tensor in bare.items()}, "outside the run's modules"),
        ({"lokr_w1": torch.ones(2)}, "no LoRA matrix in it, found: "),
        ({k: t for k, t in kohya(bare).items() if "0_attn1_to_q.alpha" not in k}, "allowed: one for all"),
    ):
        save_file(found, SOURCE / "lora.safetensors")
        assert says in refusal(task="waves")


def test_a_family_of_styles_takes_its_members_adapters_one_after_the_other(style_run: None) -> None:
    for i in range(1, 13):
        style_transformer(i).save_lora_adapter(SOURCE / f"run-{i}")
    bring(task="waves")
    theta = read_tensors(Path("inputs/waves") / THETA)["theta"]
    assert theta.shape[:2] == (6, 2) and len({tuple(row[:9].tolist()) for row in theta.flatten(0, 1)}) == 12
    shutil.rmtree(SOURCE / "run-12")
    shutil.rmtree("inputs/waves")
    assert "found 11 adapters, allowed: a multiple of 6, one member's after another's" in refusal(task="waves")
    assert "--skip-odd would move members" in refusal(task="waves", skip_odd=True)


# --- finetune-collect over an imported zoo --------------------------------------------------------


def set_zoo(zoo: str | None) -> None:
    """In the task's file, and in what check-params makes of it."""
    FILE.write_text(yaml.safe_dump(yaml.safe_load(FILE.read_text()) | {"zoo": zoo}))
    shutil.rmtree(SETTINGS, ignore_errors=True)
    save_sections(SETTINGS / "films", "films")


def no_place(**collect: Any) -> str:
    task, base, out = load_task("films"), Path("data/base"), Path("data/zoo/films")
    line = message_of(place, "films", task, make_collect(**{"max_checkpoints": 3} | collect), base, out)
    assert not list(Path("data").glob("zoo/*"))
    return line


@pytest.fixture
def imported(text_run: None) -> None:
    """A run whose task has a zoo of four adapters."""
    save_adapters(SOURCE, 4)
    bring()
    set_zoo("inputs/films")


def test_the_zoo_is_the_last_states_of_the_imported_one(imported: None) -> None:
    command = [sys.executable, "-m", "stages.finetune_collect", "films"]
    said = subprocess.check_output(command, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert said == "films: the last 3 of 4 checkpoints of inputs/films, in place of fine-tuning\n"
    folder, own = Path("data/zoo/films"), load_zoo(Path("inputs/films"))
    zoo = load_zoo(folder)
    assert torch.equal(zoo.theta, own.theta[-3:]) and zoo.layout == own.layout and zoo.config == own.config
    same(zoo.head, own.head)
    assert list(pd.read_csv(folder / "loss.csv")) == ["task", "step", "loss"]
    assert list(pd.read_csv(folder / "validation.csv")) == ["task", "step", "score"]


def test_a_zoo_of_another_run_is_one_line_and_leaves_nothing(imported: None) -> None:
    for changes, says in (
        ({"max_checkpoints": 5}, "params.yaml: collect.max_checkpoints: found 5, allowed: at most 4, as in inputs"),
        ({"alpha": 8.0}, "configs/tasks/films.yaml: zoo: inputs/films: alpha: found 4.0, allowed: 8.0 (params.yaml: "),
        ({"target_modules": ["query"]}, "target_modules: found ['attention.output.dense', 'key', 'query', 'value'],"),
        ({"factors": "B"}, "params.yaml: collect.factors: found 'B', allowed: both with an imported zoo"),
    ):
        assert says in no_place(**changes)
    write_json(Path("data/base/config.json"), read_json(Path("data/base/config.json")) | {"num_hidden_layers": 1})
    assert "inputs/films: layout.json: differs (params.yaml: collect, base); run `condpdiff import` again" in no_place()


def test_settings_hold_the_zoo_and_a_hash_of_its_files_and_without_one_nothing(imported: None) -> None:
    params, tasks = load_params()
    alone = {"films": tasks["films"].model_copy(update={"zoo": None})}
    assert "zoo" not in alone["films"].model_dump(mode="json")  # nor does its fingerprint change
    assert fingerprint(params, tasks) != fingerprint(params, alone)
    first = read_json(path := SETTINGS / "films/finetune.json")
    assert first["zoo"] == "inputs/films" and first["lr"] and load_task("films").zoo == "inputs/films"
    (Path("inputs/films") / "adapters.json").write_text("[]")
    set_zoo("inputs/films")
    assert {key for key, value in read_json(path).items() if first[key] != value} == {"sha256"}
    set_zoo(None)
    assert read_json(path).keys() == first.keys() - {"zoo", "sha256"} and load_task("films").zoo is None
    for zoo in ("inputs/none", "elsewhere", "inputs"):
        line = message_of(set_zoo, zoo)
        assert line.startswith(f"configs/tasks/films.yaml: zoo: found '{zoo}', allowed: a folder inputs/NAME that ")
