"""What is exported loads in the library that it is for and gives the same outputs; docs/adapters.md says what runs."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import RepoUrl
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from condpdiff.adapters.exporting import export, push
from condpdiff.adapters.formats import read_adapter
from condpdiff.adapters.importing import import_zoo
from condpdiff.adapters.place import place
from condpdiff.cli import app
from condpdiff.common.files import write_tensors
from condpdiff.common.task import SETTINGS, save_sections
from condpdiff.evaluate.arms import soup
from condpdiff.text.models import ATTENTION
from condpdiff.text.task import load_task
from condpdiff.zoo.checkpoints import Zoo, load_zoo, unflatten
from tests.adapters.conftest import ALPHA, BASE, RANK, ROOT, randomise, same, save_adapters, save_run, write_run
from tests.messages import message_of
from tests.stand_ins import CAUSAL, make_collect, make_task, make_zoo, save_random
from tests.style.stand_ins_style import make_style_zoo

OUT, PAGE = Path("out/lora"), (ROOT / "docs/adapters.md").read_text(encoding="utf-8")
LANGUAGE = {
    "kind": "language",
    "columns": {"text": "text"},
    "source": {"type": "files", "train": "inputs/train.jsonl", "validation": "inputs/validation.jsonl"},
}


@pytest.fixture
def films(text_run: None) -> Zoo:
    return write_run("films", make_zoo(BASE)[0])


@pytest.fixture
def waves(style_run: None) -> Zoo:
    return write_run("waves", make_style_zoo(BASE))


def out(what: str, form: str = "peft", between: str | None = None, at: float = 0.5) -> Path:
    export(what, OUT, form, between, at)
    return OUT


def refusal(*given: str) -> str:
    line = message_of(out, *given)
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
    same(found, unflatten(which(films.theta), films.layout) | films.head)
    assert json.loads((OUT / "labels.json").read_text()) == {"0": "bad", "1": "good"}
    assert ("sampled by Cond P-Diff" in (OUT / "README.md").read_text()) == what.startswith("sample")


def test_half_way_between_two_is_the_mean_of_their_weights(films: Zoo) -> None:
    found = read_adapter(out("checkpoint:films/1", between="checkpoint:films/2", at=0.25)).tensors
    same(found, unflatten(torch.lerp(films.theta[0], films.theta[1], 0.25), films.layout) | films.head)
    assert "0.25 of the way from checkpoint 1 of `films` to checkpoint 2 of `films`" in (OUT / "README.md").read_text()


def test_merged_is_a_plain_model_with_labels_and_tokenizer_that_gives_the_adapter_s_logits(films: Zoo) -> None:
    export("sample:films/1", Path("peft"), "peft", None, 0.5)
    model = AutoModelForSequenceClassification.from_pretrained(out("sample:films/1", "merged"))
    torch.testing.assert_close(logits(model), logits(on_base(Path("peft"))), rtol=1e-4, atol=1e-5)
    assert model.config.id2label == {0: "bad", 1: "good"} and model.config.label2id == {"bad": 0, "good": 1}
    assert len(AutoTokenizer.from_pretrained(OUT)) == len(AutoTokenizer.from_pretrained(BASE))
    assert message_of(out, "sample:films/1") == "out/lora: is there already, allowed: a new folder"


@pytest.mark.parametrize("form", ["peft", "merged"])
def test_a_lora_of_a_family_of_texts_goes_onto_the_model_without_a_head(form: str, films: Zoo) -> None:
    lora = LoraConfig(r=2, lora_alpha=4, task_type="FEATURE_EXTRACTION", target_modules=["query", "value"])
    made = get_peft_model(AutoModel.from_pretrained(BASE), lora)
    randomise(made, 0)
    made.save_pretrained("mine/one")
    folder = out("mine/one", form)
    base = AutoModel.from_pretrained(folder if form == "merged" else BASE)
    found = base if form == "merged" else PeftModel.from_pretrained(base, folder).merge_and_unload()
    same(found.state_dict(), made.merge_and_unload().state_dict())


@pytest.mark.parametrize("form", ["peft", "diffusers", "kohya"])
def test_a_style_goes_out_in_every_format_and_comes_back(form: str, waves: Zoo) -> None:
    found = read_adapter(out("sample:waves/1", form))
    same(found.tensors, unflatten(-waves.theta[0], waves.layout))
    assert (found.config["rank"], found.config["alpha"]) == (2, 4.0)
    if form == "kohya":
        state, name = load_file(OUT / "pytorch_lora_weights.safetensors"), "transformer_blocks_0_attn1_to_out_0"
        ends = ("lora_down.weight", "lora_up.weight", "alpha")
        assert {f"lora_unet_{name}.{end}" for end in ends} <= state.keys()  # as its scripts name them


def test_what_can_not_be_exported_is_one_line(films: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
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
    # What loads with a key too few is deleted.
    for key, says in (
        ("bert.encoder.layer.0.attention.self.query.lora_A.weight", "1 tensors are missing, left over or changed: ba"),
        ("classifier.bias", "the adapter on base model 'data/base' can't be loaded ('base_model.model.classifier.bia"),
    ):
        monkeypatch.setattr(
            "condpdiff.zoo.adapters.write_tensors",
            lambda path, t, key=f"base_model.model.{key}": write_tensors(path, {k: t[k] for k in t if k != key}),
        )
        assert says in refusal("sample:films/1")


def test_push_makes_the_repository_and_uploads_the_folder_and_without_a_hub_it_is_one_line(
    films: Zoo, no_hub: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = message_of(push, out("sample:films/1"), "me/films")
    assert line.startswith("--push-to-hub me/films: ") and "out/lora is written" in line
    assert (OUT / "adapter_model.safetensors").is_file()
    calls: list[Any] = []
    url = RepoUrl("https://huggingface.co/me/films", endpoint="https://huggingface.co")
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda self, *a, **k: calls.append((a, k)) or url)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda self, **k: calls.append(k))
    assert push(OUT, "films") == "https://huggingface.co/me/films"
    assert calls == [(("films",), {"exist_ok": True}), {"repo_id": "me/films", "folder_path": OUT}]


@pytest.mark.parametrize("model_type", CAUSAL)
def test_adapters_of_a_causal_language_model_are_a_zoo_and_leave_again(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_random(model_type, BASE, AutoModelForCausalLM)
    save_run("text", "poems", make_task(data=LANGUAGE, metrics=["log_likelihood"], finetune={"head_lr": 0.0}))
    targets = list(ATTENTION[model_type])
    settings = {"r": RANK, "lora_alpha": ALPHA, "target_modules": targets, "task_type": "CAUSAL_LM"}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE), LoraConfig(**settings))
    for i in (1, 2, 3):
        randomise(model, i).save_pretrained(f"mine/run-{i}")
    import_zoo(Path("mine"), "poems", False, print)
    task = Path("configs/tasks/poems.yaml")
    task.write_text(task.read_text() + "zoo: inputs/poems\n")
    save_sections(SETTINGS / "poems", "poems")
    place("poems", load_task("poems"), make_collect(max_checkpoints=3), BASE, Path("data/zoo/poems"))
    zoo = load_zoo(Path("data/zoo/poems"))
    assert zoo.theta.shape[0] == 3 and not zoo.head and zoo.config["task_type"] == "CAUSAL_LM"
    export("checkpoint:poems/3", Path("out"), "peft", None, 0.5)
    same(*(load_file(Path(folder, "adapter_model.safetensors")) for folder in ("mine/run-3", "out")))


def test_commands_of_the_page_say_what_it_says(text_run: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("condpdiff.adapters.exporting.push", lambda out, hub: hub)
    save_run("text", "mine", make_task())
    write_run("mine", make_zoo(Path("data/base"))[0])
    save_adapters(Path("runs/mine"), 12, names="checkpoint-{}0")
    save_adapters(Path("data/adapters"), 1, names="mine")
    commands = re.findall(r"^\$ (condpdiff .*?)(?: +#.*)?$((?:\n(?!\$|```).+)*)", PAGE, re.MULTILINE)
    assert len(commands) == 7
    for command, said in commands:
        if "use_dora" in said and not Path("runs/mine/run-2").exists():
            shutil.rmtree("runs")
            save_adapters(Path("runs/mine"), 4, names="run-{}")
            save_adapters(Path("runs/mine"), 2, names="run-{}", use_dora=True)
            shutil.rmtree("runs/mine/run-1")
        result = CliRunner().invoke(app, command.split()[1:])
        assert result.exit_code == ("error: " in said), result.output
        for line in said.strip().splitlines():
            assert re.sub(r"[\d,]+", "N", line) in re.sub(r"[\d,]+", "N", result.output)
    same(*(load_file(Path(folder, "adapter_model.safetensors")) for folder in ("data/adapters/mine", "out/best")))


def test_the_page_s_way_into_diffusers_works(waves: Zoo) -> None:
    out("sample:waves/1", "diffusers")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["model"].peft_config["default_0"].lora_alpha == 4
    for key, tensor in unflatten(-waves.theta[0], waves.layout).items():
        name = key.removeprefix("base_model.model.").replace(".weight", ".default_0.weight")
        assert torch.equal(names["model"].get_parameter(name), tensor)
