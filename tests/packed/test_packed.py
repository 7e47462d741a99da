"""A generator's folder, of which nothing leads outside, and `condpdiff apply`, which says what PEFT itself makes of
an adapter."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from condpdiff import Generator
from condpdiff.cli import app
from condpdiff.common.files import read_json, read_tensors, write_json, write_tensors
from condpdiff.common.pretrained import save_source
from condpdiff.packed import apply as of
from condpdiff.packed.generator import BASE, CONFIG
from condpdiff.style.data import captions_of
from condpdiff.style.images import encode_png
from condpdiff.zoo.adapters import LABELS, export_adapter
from tests.messages import message_of
from tests.packed.tiny_generators import style_generator, text_generator
from tests.stand_ins import LAYERS, make_zoo
from tests.style.stand_ins_style import make_images, save_style_base

TEXTS = ["the film was good", "a really awful plot and a very poor film", "lovely"]
ROWS = of.rows_of(TEXTS)
Adapter = Callable[..., Path]


@pytest.mark.parametrize("name", ["../films", "/films", "films/../stars", "..", "films/x"])
def test_names_that_lead_outside_are_one_line(base: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    folder = text_generator(tmp_path / "generator", base("bert")).folder
    file = folder / "conditions/conditions.safetensors"
    y, config = read_tensors(file), read_json(folder / CONFIG)
    write_tensors(file, {"stars": y["stars"], name: y["films"]})
    assert f"found {name!r}, allowed: the tasks of config.json" in message_of(Generator(folder).generate, name)
    if not name.startswith("films"):
        tasks = {"stars": config["tasks"]["stars"], name: config["tasks"]["films"]}
        write_json(folder / CONFIG, config | {"tasks": tasks})
        assert "config.json: tasks" in message_of(Generator, folder)
    write_json(folder / CONFIG, config | {"base": config["base"] | {"sha256": "../" * 5}})
    assert "config.json: base.sha256" in message_of(Generator, folder)


def test_pictures_of_a_folder_train_on_with_the_captions_beside_them(tmp_path: Path) -> None:
    base = save_style_base(tmp_path / "base")
    folder = style_generator(tmp_path / "generator", base).folder
    (pictures := tmp_path / "pictures").mkdir()
    for i, image in enumerate(make_images(2, 9)):
        (pictures / f"{i}.png").write_bytes(encode_png(image))
    paths = sorted(pictures.iterdir())
    assert captions_of(paths) == ["a picture"] * 2
    lines = [json.dumps({"file_name": path.name, "text": f"picture {path.stem}"}) for path in paths]
    (pictures / "metadata.jsonl").write_text("\n".join(lines))
    assert captions_of(paths[1:]) == ["picture 1"]
    words = ["generate", str(folder), "--style-image", str(pictures), "--base", str(base), "--out"]
    made = CliRunner().invoke(app, [*words, str(tmp_path / "out"), "--steps", "2"])
    assert made.exit_code == 0 and "2 steps: loss " in made.output and "on 2 pictures" in made.output, made.output
    assert "2 steps of fine-tuning on 2 pictures" in (tmp_path / "out/0/README.md").read_text()
    (pictures / "0.txt").write_text("another")
    refused = CliRunner().invoke(app, [*words, str(tmp_path / "other"), "--steps", "2"])
    assert "found captions in" in str(refused.exception) and not (tmp_path / "other").exists()
    shutil.rmtree(pictures)
    pictures.mkdir()
    refused = CliRunner().invoke(app, [*words, str(tmp_path / "other")])
    assert "no pictures in this folder" in str(refused.exception)


# --- apply ------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(base, tmp_path: Path) -> Adapter:
    """`adapter(model_type, outputs)`: an exported LoRA of a random zoo."""

    def export(model_type: str = "bert", outputs: int = 2) -> Path:
        (out := tmp_path / f"{model_type}{outputs}").mkdir()
        zoo = make_zoo(base(model_type), num_outputs=outputs)[0]
        export_adapter(out, zoo.theta[0], zoo, str(base(model_type)), "adapter")
        return out

    return export


@pytest.mark.parametrize(("model_type", "outputs"), [("bert", 2), ("roberta", 3), ("deberta", 2), ("bert", 1)])
def test_outputs_are_those_of_peft(base, adapter: Adapter, model_type: str, outputs: int) -> None:
    folder = adapter(model_type, outputs)
    found = of.apply(folder, ROWS)
    model = AutoModelForSequenceClassification.from_pretrained(base(model_type), num_labels=outputs)
    tokens = AutoTokenizer.from_pretrained(base(model_type))(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = PeftModel.from_pretrained(model, str(folder)).eval()(**tokens).logits
    torch.testing.assert_close(torch.tensor(found.to_numpy()), logits if outputs == 1 else logits.softmax(1))
    assert list(found) == (["value"] if outputs == 1 else [f"LABEL_{i}" for i in range(outputs)])


def test_labels_are_the_adapters_or_the_bases(base, adapter: Adapter, tmp_path: Path) -> None:
    folder, own = adapter(), tmp_path / "own"
    model = AutoModelForSequenceClassification.from_pretrained(base("bert"), id2label={0: "no", 1: "yes"})
    model.save_pretrained(own)
    AutoTokenizer.from_pretrained(base("bert")).save_pretrained(own)
    assert list(of.apply(folder, ROWS, own)) == ["no", "yes"]
    assert list(of.apply(adapter(outputs=3), ROWS, own)) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    write_json(folder / LABELS, {"0": "bad", "1": "good"})
    assert list(of.apply(folder, ROWS, own)) == ["bad", "good"]
    write_json(folder / LABELS, {"0": "bad"})
    said = message_of(of.apply, folder, ROWS, own)
    assert said.endswith("labels.json: found 1 labels, allowed: 2, as the classifier has")


def test_generated_adapters_stand_beside_others_in_a_table(base, adapter: Adapter, tmp_path: Path) -> None:
    generator = text_generator(tmp_path / "generator", base("bert"))
    shutil.copytree(base("bert"), generator.folder / BASE)
    save_source(generator.folder / BASE, "local", "tiny", "elsewhere")
    made = [tmp_path / "made" / name for name in generator.tasks]
    for name, out in zip(generator.tasks, made, strict=True):
        generator.generate(name)[0].save_pretrained(out)
    pd.DataFrame({"text": TEXTS}).to_csv(tmp_path / "texts.csv", index=False)
    words = ["apply", adapter(), *(word for out in made for word in ("--compare", out))]
    words = [*map(str, words), "--file", str(tmp_path / "texts.csv"), "--base", str(generator.folder)]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    header, *lines = shown.output.splitlines()
    assert header.split() == ["text", str(tmp_path / "bert2"), *map(str, made)] and len(lines) == len(TEXTS)
    films, stars = (of.apply(out, ROWS, generator.folder) for out in made)
    assert set(films) == {"bad", "good"} and films.sum(1).to_numpy() == pytest.approx(1)
    for line, text, p, value in zip(lines, TEXTS, films.to_dict("records"), stars["value"], strict=True):
        likeliest = max(p, key=p.__getitem__)
        assert line.startswith(text) and f"{likeliest} {p[likeliest]:.3f}, " in line and line.endswith(f"  {value:.3f}")


def test_texts_come_of_lines_tables_and_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one, two\n\n three\n", encoding="utf-8")
    assert of.read_texts(tmp_path / "a.txt").to_numpy().tolist() == [["one, two", ""], [" three", ""]]
    pd.DataFrame({"text": ["a", "b"], "label": [0, 1], "text_pair": ["c", ""]}).to_parquet(tmp_path / "b.parquet")
    assert of.read_texts(tmp_path / "b.parquet").to_numpy().tolist() == [["a", "c"], ["b", ""]]
    for name, content, says in (
        ("b.csv", "words\na\n", "found 1 rows of words; allowed: rows of text"),
        ("c.jsonl", '{"text": "a"}\n{"text": 1}\n', "row 2: text: found 1, allowed: text"),
        ("d.doc", "", "found suffix '.doc', allowed: .csv, .tsv"),
    ):
        (tmp_path / name).write_text(content)
        assert says in message_of(of.read_texts, tmp_path / name)


def test_what_does_not_fit_is_one_line(base, adapter: Adapter, tmp_path: Path, no_hub: None) -> None:
    folder = adapter()
    weights, settings = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    assert "adapter_config.json: no such file" in message_of(of.apply, tmp_path / "none", ROWS)
    assert "--base: no such folder" in message_of(of.apply, folder, ROWS, tmp_path / "none")
    assert "does not fit the base model" in message_of(of.apply, folder, ROWS, base("deberta"))
    write_json(settings, (plain := read_json(settings)) | {"base_model_name_or_path": "some/where"})
    said = message_of(of.apply, folder, ROWS)
    assert "base model 'some/where' can't be loaded" in said and said.endswith("which made the adapter")
    tensors = read_tensors(weights)
    deeper = {key.replace(f"layer.{LAYERS - 1}", f"layer.{LAYERS}"): value.clone() for key, value in tensors.items()}
    write_tensors(weights, tensors | deeper)
    assert f"layer.{LAYERS}." in message_of(of.apply, folder, ROWS, base("bert"))
    write_tensors(weights, {k: v for k, v in tensors.items() if ".lora_" in k})
    assert "no classifier among its tensors" in message_of(of.apply, folder, ROWS)
    weights.rename(folder / "adapter_model.bin")  # pickles are not read
    assert "adapter_model.safetensors: no such file" in message_of(of.apply, folder, ROWS)
    write_json(settings, plain | {"task_type": "CAUSAL_LM"})
    assert "task_type: found 'CAUSAL_LM', allowed: 'SEQ_CLS'" in message_of(of.apply, folder, ROWS)
