"""What others trained becomes a zoo: every weight in its place, and what does not fit is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from condpdiff.adapters.importing import import_zoo
from condpdiff.common.files import read_json, read_tensors
from condpdiff.zoo.checkpoints import THETA, load_zoo
from condpdiff.zoo.layout import unflatten
from tests.adapters.stand_ins_adapters import (
    peft_model,
    randomise,
    save_adapters,
    style_transformer,
    train_with_trainer,
)
from tests.messages import message_of

SOURCE = Path("mine")


def bring(source: Path = SOURCE, task: str = "films", skip_odd: bool = False) -> list[str]:
    said: list[str] = []
    import_zoo(source, task, skip_odd, said.append)
    return said


def refusal(source: Path = SOURCE, task: str = "films") -> str:
    line = message_of(bring, source, task)
    assert not list(Path("inputs").iterdir())
    return line


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_folder_of_peft_adapters_is_a_zoo_in_the_order_of_their_names(text_run: Path, dtype: torch.dtype) -> None:
    models = save_adapters(SOURCE, 11)  # run-10 comes after run-9
    change_config(base_model_name_or_path="someone/tiny")(SOURCE / "run-1")  # the hub's id of models/tiny
    for path in SOURCE.rglob("*.safetensors"):
        save_file({key: tensor.to(dtype) for key, tensor in load_file(path).items()}, path)
    said = bring()
    zoo = load_zoo(Path("inputs/films"))
    assert len(zoo.theta) == 11 and zoo.theta.dtype == torch.float32
    for row, model in zip(zoo.theta, models, strict=True):
        state = get_peft_model_state_dict(model)
        found = {**unflatten(row, zoo.layout), **zoo.head}
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key].to(dtype).float()) for key in state)
    assert said == [
        f"inputs/films: 11 checkpoints of {zoo.layout.K:,} weights, run-1 to run-11",
        "now set `zoo: inputs/films` in configs/tasks/films.yaml, and track inputs/films with `dvc add` or `git add`",
    ]
    assert zoo.config["task"] == "films" and zoo.config["num_outputs"] == 2


def test_a_trainer_s_checkpoints_come_in_the_order_of_their_steps(text_run: Path) -> None:
    train_with_trainer(SOURCE)
    said = bring()
    zoo = load_zoo(Path("inputs/films"))
    assert read_tensors(Path("inputs/films") / THETA)["steps"].tolist() == [2, 4, 6]
    assert torch.equal(
        unflatten(zoo.theta[2], zoo.layout)[zoo.layout.entries[0].key],
        load_file(SOURCE / "adapter_model.safetensors")[zoo.layout.entries[0].key],
    )
    assert said[0].startswith("the adapters' heads differ, by up to ")
    heads = [load_file(SOURCE / f"checkpoint-{n}/adapter_model.safetensors") for n in (2, 4, 6)]
    key = "base_model.model.classifier.bias"
    torch.testing.assert_close(zoo.head[key], sum(head[key] for head in heads) / 3)


def test_a_stacked_file_and_a_list_give_the_same_zoo(text_run: Path) -> None:
    save_adapters(SOURCE, 3)
    bring()
    shutil.copytree("inputs/films", "stacked")
    lines = [{"id": name, "description": f"the {name}", "path": f"mine/run-{i}"} for i, name in enumerate("abc", 1)]
    Path("zoo.jsonl").write_text("\n".join(map(json.dumps, lines)))
    first = {path.name: path.read_bytes() for path in Path("inputs/films").iterdir()}
    for source in (Path("stacked"), Path("stacked/theta.safetensors"), Path("zoo.jsonl")):
        bring(source)
        again = {path.name: path.read_bytes() for path in Path("inputs/films").iterdir()}
        assert [name for name in first if again[name] != first[name]] == ["adapters.json"]
    assert read_json(Path("inputs/films/adapters.json"))[1] == {"id": "b", "description": "the b"}


def test_adapters_of_any_name_are_found(text_run: Path) -> None:
    """PEFT gives them a folder of the name; others leave the name in the keys."""
    (one,) = save_adapters(SOURCE, 1)
    model = peft_model()
    model.add_adapter("mood", model.peft_config["default"])
    randomise(model, 1).save_pretrained(SOURCE / "run-2", selected_adapters=["mood"])
    assert (SOURCE / "run-2/mood/adapter_config.json").is_file()
    shutil.copytree(SOURCE / "run-1", SOURCE / "run-3")
    state = {key.replace(".default.", ".mine."): t for key, t in one.state_dict().items() if ".lora_" in key}
    state |= {key: t for key, t in load_file(SOURCE / "run-1/adapter_model.safetensors").items() if ".lora_" not in key}
    save_file(state, SOURCE / "run-3/adapter_model.safetensors")
    bring()
    theta = load_zoo(Path("inputs/films")).theta
    assert len(theta) == 3 and torch.equal(theta[0], theta[2])


def change_config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(read_json(path) | changes))

    return change


def change_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return changed


def as_pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"
ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "rslora": (change_config(use_rslora=True), "mine/run-2/adapter_config.json: use_rslora: found True, allowed: "),
    "dora": (change_config(use_dora=True), "use_dora: found True"),
    "bias": (change_config(bias="lora_only"), "bias: found 'lora_only'"),
    "rank_pattern": (change_config(rank_pattern={"query": 4}), "rank_pattern: found {'query': 4}"),
    "alpha_pattern": (change_config(alpha_pattern={"query": 4}), "alpha_pattern: found"),
    "pissa": (change_config(init_lora_weights="pissa"), "init_lora_weights: found 'pissa', which changes the base"),
    "ia3": (change_config(peft_type="IA3"), "peft_type: found 'IA3', allowed: LORA"),
    "a key of later days": (change_config(use_magic=1), "use_magic: found 1"),
    "base": (
        change_config(base_model_name_or_path="google/bert"),
        "run-2: base model: found google/bert, allowed: models/",
    ),
    "alpha": (change_config(lora_alpha=8), "run-2: alpha: found 8, allowed: 4 (params.yaml: collect.alpha)"),
    "rank": (change_config(r=8), "found matrices of rank 2, allowed: 8 for all"),
    "shape": (change_tensors(lambda t: t.update({f"{QUERY}.lora_A.weight": torch.ones(2, 5)})), "found shape [2, 5]"),
    "missing": (change_tensors(lambda t: t.pop(f"{QUERY}.lora_B.weight")), f"no tensor {QUERY}.lora_B.weight, which"),
    "no head": (change_tensors(lambda t: t.pop("base_model.model.classifier.bias")), "modules_to_save)"),
    "embedding": (
        change_tensors(lambda t: t.update({"word.lora_embedding_A": torch.ones(2)})),
        "word.lora_embedding_A: ",
    ),
    "integers": (change_tensors(lambda t: t.update({"x": torch.ones(2).long()})), "x: found torch.int64, allowed: "),
    "not a number": (change_tensors(lambda t: t[f"{QUERY}.lora_A.weight"].fill_(torch.nan)), "that are no numbers"),
    "pickle": (as_pickle, "mine/run-2/adapter_model.bin: a pickle, which may run code when it is opened"),
    "truncated": (
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x"),
        "not a readable safetensors",
    ),
}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"folder": tmp_path_factory.mktemp("three")}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_adapter_is_named_and_refused_or_left_out(case: str, text_run: Path, three: dict[str, Path]) -> None:
    if not (three["folder"] / "run-1").exists():
        save_adapters(three["folder"], 3)
    shutil.copytree(three["folder"], SOURCE)
    change, says = ODD[case]
    change(SOURCE / "run-2")
    line = refusal()
    assert says in line and line.endswith("; --skip-odd leaves such adapters out")
    skipped, *_ = bring(skip_odd=True)
    assert skipped == f"skipped: {line.removesuffix('; --skip-odd leaves such adapters out')}"
    assert [item["id"] for item in read_json(Path("inputs/films/adapters.json"))] == ["run-1", "run-3"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: None, "mine: no such source, allowed: a folder of adapters, "),
        (lambda: SOURCE.mkdir(), "mine: no adapter in its folders, allowed: "),
        (lambda: save_adapters(SOURCE, 2, r=4), "run-1: rank: found 4, allowed: 2 (params.yaml: collect.rank)"),
        (lambda: save_adapters(SOURCE, 1, target_modules=["query"]), "no tensor base_model.model.bert.encoder.la"),
        (lambda: save_adapters(SOURCE, 1, target_modules="all-linear"), ": outside the run's modules (params.yaml"),
    ],
)  # fmt: skip
def test_what_is_no_zoo_of_the_run_is_one_line(make: Callable[[], object], says: str, text_run: Path) -> None:
    make()
    assert says in refusal()


def test_an_unknown_task_a_list_that_is_none_and_all_adapters_odd_are_one_line(text_run: Path) -> None:
    save_adapters(SOURCE, 2)
    assert "unknown task 'filmz' (did you mean 'films'?)" in refusal(task="filmz")
    Path("zoo.jsonl").write_text('{"id": "a"}\n')
    assert refusal(Path("zoo.jsonl")) == "zoo.jsonl: line 1: allowed: {id, description, path} in JSON"
    for folder in SOURCE.iterdir():
        change_config(use_dora=True)(folder)
    assert message_of(bring, skip_odd=True) == "mine: none of its adapters fits params.yaml"
    save_file({"theta": torch.ones(3, 7)}, SOURCE / THETA)
    (SOURCE / "layout.json").write_text("[]")
    assert refusal().startswith("mine/theta.safetensors: theta: found [3, 7], allowed: [N, 0]")


def test_fewer_checkpoints_than_the_run_asks_for_are_told(text_run: Path) -> None:
    save_adapters(SOURCE, 2)
    assert bring()[1] == "params.yaml: collect.max_checkpoints is 3: set it, and normalize.n_checkpoints, to at most 2"


def kohya(tensors: dict[str, torch.Tensor], alpha: float, prefix: str = "lora_unet_") -> dict[str, torch.Tensor]:
    """As kohya's scripts name them."""
    found = {}
    for key, tensor in tensors.items():
        module, _, kind = key.partition(".lora_")
        name = prefix + module.replace(".", "_")
        found[f"{name}.lora_{'down' if kind[0] == 'A' else 'up'}.weight"] = tensor
        found[f"{name}.alpha"] = torch.tensor(alpha)
    return found


def test_files_of_diffusers_and_kohya_are_one_zoo(style_run: Path) -> None:
    model = style_transformer(1)
    model.save_lora_adapter(SOURCE / "run-1")
    bare = load_file(SOURCE / "run-1/pytorch_lora_weights.safetensors")
    old = {k.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): t for k, t in bare.items()}
    alphas = {f"{key.partition('.lora')[0]}.alpha": torch.tensor(4.0) for key in old}
    save_file({f"unet.{key}": t for key, t in (old | alphas).items()}, SOURCE / "run-2.safetensors")
    save_file(kohya(bare, 4.0), SOURCE / "run-3.safetensors")
    save_file(kohya(bare, 4.0, "lora_transformer_"), SOURCE / "run-4.safetensors")
    bring(task="waves")
    zoo = load_zoo(Path("inputs/waves"))
    assert len(zoo.theta) == 4 and (zoo.theta == zoo.theta[0]).all() and not zoo.head
    found = unflatten(zoo.theta[0], zoo.layout)
    assert all(torch.equal(found[f"base_model.model.{key}"], tensor) for key, tensor in bare.items())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda bare: kohya(bare, 2.0), ".safetensors: alpha: found 2, allowed: 4"),
        (lambda bare: kohya(bare, 4.0, "lora_te_"), "base_model.model.text_encoder.transformer.blocks.0."),
        (lambda bare: {"lora_unet_x.hada_w1_a": torch.ones(2)}, "keys that diffusers can't convert"),
        (lambda bare: {f"double_blocks.0.{k}": t for k, t in bare.items()}, ": outside the run's modules"),
        (lambda bare: {"lokr_w1": torch.ones(2)}, "no LoRA matrix in it, found: "),
        (lambda bare: {k: t for k, t in kohya(bare, 4).items() if "0_attn1_to_q.al" not in k}, "allowed: one for all"),
    ],
)  # fmt: skip
def test_files_of_other_models_and_kinds_are_refused_by_name(
    make: Callable[..., dict], says: str, style_run: Path
) -> None:
    style_transformer(1).save_lora_adapter(SOURCE)
    bare = load_file(SOURCE / "pytorch_lora_weights.safetensors")
    shutil.rmtree(SOURCE)
    SOURCE.mkdir()
    save_file(make(bare), SOURCE / "lora.safetensors")
    assert says in refusal(task="waves")
