"""What is exported loads in the library that it is for, and gives the same outputs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from condpdiff.adapters.exporting import export, push
from condpdiff.adapters.formats import read_adapter
from condpdiff.common.files import write_tensors
from condpdiff.evaluate.controls import soup
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.layout import unflatten
from tests.adapters.stand_ins_adapters import BASE, save_adapters, style_transformer, write_run
from tests.messages import message_of
from tests.stand_ins import make_zoo
from tests.style.stand_ins_style import make_style_zoo

OUT = Path("out/lora")


@pytest.fixture
def films(text_run: None) -> Zoo:
    return write_run("films", make_zoo(BASE)[0])


@pytest.fixture
def waves(style_run: None) -> Zoo:
    return write_run("waves", make_style_zoo(BASE))


def out(what: str, form: str = "peft", between: str | None = None, at: float = 0.5) -> Path:
    export(what, OUT, form, between, at)
    return OUT


def refusal(what: str, form: str = "peft", between: str | None = None) -> str:
    line = message_of(export, what, OUT, form, between, 0.5)
    assert not list(OUT.parent.glob("*"))
    return line


def logits(model: Any) -> torch.Tensor:
    rows = AutoTokenizer.from_pretrained(BASE)(["a good film", "the plot was awful"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        return model.eval()(**rows).logits


def on_base(folder: Path) -> PeftModel:
    return PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=2), folder)


@pytest.mark.parametrize(
    ("what", "which"),
    [
        ("sample:films/2", lambda theta: -theta[1]),
        ("checkpoint:films/6", lambda theta: theta[5]),
        ("soup:films", lambda theta: soup(theta[-3:])[0]),
    ],
)
def test_peft_loads_what_the_run_holds_and_labels_lie_beside_it(what: str, which: Any, films: Zoo) -> None:
    found = get_peft_model_state_dict(on_base(out(what)))
    expected = {**unflatten(which(films.theta), films.layout), **films.head}
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)
    assert json.loads((OUT / "labels.json").read_text()) == {"0": "bad", "1": "good"}
    assert ("sampled by Cond P-Diff" in (OUT / "README.md").read_text()) == what.startswith("sample")


def test_an_adapter_s_folder_goes_out_as_it_came_in(text_run: None) -> None:
    save_adapters(Path("mine"), 1)
    again = out("mine/run-1") / "adapter_model.safetensors"
    state, own = load_file(again), load_file("mine/run-1/adapter_model.safetensors")
    assert state.keys() == own.keys() and all(torch.equal(state[key], own[key]) for key in own)
    assert not (OUT / "labels.json").exists()


def test_half_way_between_two_is_the_mean_of_their_weights(films: Zoo) -> None:
    found = read_adapter(out("checkpoint:films/1", between="checkpoint:films/2", at=0.25)).tensors
    expected = unflatten(torch.lerp(films.theta[0], films.theta[1], 0.25), films.layout)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert "0.25 of the way from checkpoint 1 of `films` to checkpoint 2 of `films`" in (OUT / "README.md").read_text()


def test_merged_is_a_plain_model_with_labels_and_tokenizer_that_gives_the_adapter_s_logits(films: Zoo) -> None:
    export("sample:films/1", Path("peft"), "peft", None, 0.5)
    model = AutoModelForSequenceClassification.from_pretrained(out("sample:films/1", "merged"))
    torch.testing.assert_close(logits(model), logits(on_base(Path("peft"))), rtol=1e-4, atol=1e-5)
    assert model.config.id2label == {0: "bad", 1: "good"} and model.config.label2id == {"bad": 0, "good": 1}
    assert len(AutoTokenizer.from_pretrained(OUT)) == len(AutoTokenizer.from_pretrained(BASE))
    assert message_of(out, "sample:films/1") == "out/lora: is there already, allowed: a new folder"


@pytest.mark.parametrize("form", ["peft", "diffusers", "kohya"])
def test_a_style_goes_out_in_every_format_and_comes_back(form: str, waves: Zoo) -> None:
    found = read_adapter(out("sample:waves/1", form))
    expected = unflatten(-waves.theta[0], waves.layout)
    assert found.tensors.keys() == expected.keys() and (found.config["rank"], found.config["alpha"]) == (2, 4.0)
    assert all(torch.equal(found.tensors[key], expected[key]) for key in expected)


def test_diffusers_loader_takes_its_file_with_its_alpha(waves: Zoo) -> None:
    model = style_transformer(1)
    model.load_lora_adapter(out("sample:waves/1", "diffusers"), prefix="transformer", use_safetensors=True)
    assert model.peft_config["default_1"].lora_alpha == 4
    for key, tensor in unflatten(-waves.theta[0], waves.layout).items():
        name = key.removeprefix("base_model.model.").replace(".weight", ".default_1.weight")
        assert torch.equal(model.get_parameter(name), tensor)


def test_kohya_keys_are_those_of_its_scripts(waves: Zoo) -> None:
    state = load_file(out("sample:waves/1", "kohya") / "pytorch_lora_weights.safetensors")
    name = "lora_unet_transformer_blocks_0_attn1_to_out_0"
    assert {f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"} <= state.keys()
    assert {float(tensor) for key, tensor in state.items() if key.endswith(".alpha")} == {4.0}


def test_what_can_not_be_exported_is_one_line(films: Zoo) -> None:
    save_adapters(Path("mine"), 1, r=4)
    for given, says in (
        (("sample:films/7",), "sample:films/7: found number '7', allowed: 1 to 6"),
        (("checkpoint:films/0",), "allowed: 1 to 6"),
        (("checkpoint:filmz/1",), "data/zoo/filmz/layout.json: no such file"),
        (("nowhere",), "nowhere: no such adapter, allowed: sample:TASK/3, "),
        (("sample:films/1", "kohya"), "--format: found 'kohya', allowed: peft, merged (domain: text)"),
        (("sample:films/1", "peft", "mine/run-1"), "--between: the two have other rank, allowed: two that differ"),
    ):
        assert says in refusal(*given)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (
            "bert.encoder.layer.0.attention.self.query.lora_A.weight",
            "1 tensors are missing, left over or changed: base_",
        ),
        (
            "classifier.bias",
            "the adapter on base model 'data/base' can't be loaded ('base_model.model.classifier.bias'); ",
        ),
    ],
)
def test_what_loads_with_a_key_too_few_is_deleted(
    key: str, says: str, films: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        write_tensors(path, {name: t for name, t in tensors.items() if name != f"base_model.model.{key}"})

    monkeypatch.setattr("condpdiff.zoo.adapters.write_tensors", without)
    assert says in refusal("sample:films/1")


def test_push_without_a_hub_is_one_line_and_the_files_stay(films: Zoo, no_hub: None) -> None:
    line = message_of(push, out("sample:films/1"), "me/films")
    assert line.startswith("--push-to-hub me/films: ") and "out/lora is written" in line
    assert (OUT / "adapter_model.safetensors").is_file()


def test_push_makes_the_repository_and_uploads_the_folder(films: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import RepoUrl

    calls: list[Any] = []
    url = RepoUrl("https://huggingface.co/me/films", endpoint="https://huggingface.co")
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda self, *a, **k: calls.append((a, k)) or url)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda self, **k: calls.append(k))
    assert push(out("sample:films/1"), "films") == "https://huggingface.co/me/films"
    assert calls == [(("films",), {"exist_ok": True}), {"repo_id": "me/films", "folder_path": OUT}]
