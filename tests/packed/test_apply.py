"""`condpdiff apply`: what PEFT itself makes of an adapter, under the labels' names."""

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

from condpdiff.cli import app
from condpdiff.common.files import read_tensors, write_json, write_tensors
from condpdiff.common.pretrained import save_source
from condpdiff.packed import apply as of
from condpdiff.packed.config import BASE
from condpdiff.zoo.adapters import LABELS, export_adapter
from tests.messages import message_of
from tests.packed.tiny_generators import text_generator
from tests.stand_ins import LAYERS, make_zoo

TEXTS = ["the film was good", "a really awful plot and a very poor film", "lovely"]
Adapter = Callable[..., Path]


@pytest.fixture
def adapter(base, tmp_path: Path) -> Adapter:
    """`adapter(model_type, outputs)`: an exported LoRA of a random zoo."""

    def export(model_type: str = "bert", outputs: int = 2) -> Path:
        out, folder = tmp_path / f"{model_type}{outputs}", base(model_type)
        out.mkdir()
        zoo = make_zoo(folder, num_outputs=outputs)[0]
        export_adapter(out, zoo.theta[0], zoo, str(folder), "adapter")
        return out

    return export


def logits_of_peft(base: Path, adapter: Path, outputs: int) -> torch.Tensor:
    """As the card of an adapter says."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=outputs)
    tokens = AutoTokenizer.from_pretrained(base)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        return PeftModel.from_pretrained(model, str(adapter)).eval()(**tokens).logits


@pytest.mark.parametrize(("model_type", "outputs"), [("bert", 2), ("roberta", 3), ("deberta", 2), ("bert", 1)])
def test_outputs_are_those_of_peft(base, adapter: Adapter, model_type: str, outputs: int) -> None:
    folder = adapter(model_type, outputs)
    found = of.apply(folder, of.rows_of(TEXTS))
    logits = logits_of_peft(base(model_type), folder, outputs)
    expected = logits if outputs == 1 else logits.softmax(1)
    torch.testing.assert_close(torch.tensor(found.to_numpy()), expected)
    assert list(found) == (["value"] if outputs == 1 else [f"LABEL_{i}" for i in range(outputs)])


def test_labels_are_the_adapters_or_the_bases(base, adapter: Adapter, tmp_path: Path) -> None:
    folder, own = adapter(), tmp_path / "own"
    model = AutoModelForSequenceClassification.from_pretrained(base("bert"), id2label={0: "no", 1: "yes"})
    model.save_pretrained(own)
    AutoTokenizer.from_pretrained(base("bert")).save_pretrained(own)
    assert list(of.apply(folder, of.rows_of(TEXTS), own)) == ["no", "yes"]
    assert list(of.apply(adapter(outputs=3), of.rows_of(TEXTS), own)) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    write_json(folder / LABELS, {"0": "bad", "1": "good"})
    assert list(of.apply(folder, of.rows_of(TEXTS), own)) == ["bad", "good"]
    write_json(folder / LABELS, {"0": "bad"})
    said = message_of(of.apply, folder, of.rows_of(TEXTS), own)
    assert said.endswith("labels.json: found 1 labels, allowed: 2, as the classifier has")


def test_generated_adapters_stand_beside_others_in_a_table_and_in_json(base, adapter: Adapter, tmp_path: Path) -> None:
    generator = text_generator(tmp_path / "generator", base("bert"))
    shutil.copytree(base("bert"), generator.folder / BASE)
    save_source(generator.folder / BASE, "local", "tiny", "elsewhere")
    made = [tmp_path / "made" / name for name in generator.tasks]
    for name, out in zip(generator.tasks, made, strict=True):
        generator.generate(name)[0].save_pretrained(out)
    file = tmp_path / "texts.csv"
    pd.DataFrame({"text": TEXTS}).to_csv(file, index=False)
    words = ["apply", str(adapter()), *(word for out in made for word in ("--compare", str(out))), "--file", str(file)]
    words += ["--base", str(generator.folder)]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    header, *lines = shown.output.splitlines()
    assert header.split() == ["text", str(tmp_path / "bert2"), *map(str, made)] and len(lines) == len(TEXTS)
    rows = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    for line, row, text in zip(lines, rows, TEXTS, strict=True):
        films, stars = (row["said"][str(out)] for out in made)
        assert row["text"] == text and line.startswith(text) and set(films["probabilities"]) == {"bad", "good"}
        assert sum(films["probabilities"].values()) == pytest.approx(1)
        assert f"{films['label']} {films['probabilities'][films['label']]:.3f}, " in line
        assert line.endswith(f"  {stars['value']:.3f}")


def test_texts_come_of_lines_tables_and_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one, two\n\n three\n", encoding="utf-8")
    assert of.read_texts(tmp_path / "a.txt").to_numpy().tolist() == [["one, two", ""], [" three", ""]]
    frame = pd.DataFrame({"text": ["a", "b"], "label": [0, 1], "text_pair": ["c", ""]})
    frame.to_csv(tmp_path / "b.tsv", sep="\t", index=False)
    frame.to_json(tmp_path / "b.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "b.parquet")
    for suffix in ("tsv", "jsonl", "parquet"):
        assert of.read_texts(tmp_path / f"b.{suffix}").to_numpy().tolist() == [["a", "c"], ["b", ""]]
    (tmp_path / "b.csv").write_text("words\na\n")
    assert message_of(of.read_texts, tmp_path / "b.csv").endswith("found 1 rows of words; allowed: rows of text")
    (tmp_path / "c.jsonl").write_text('{"text": "a"}\n{"text": 1}\n')
    assert message_of(of.read_texts, tmp_path / "c.jsonl").endswith("row 2: text: found 1, allowed: text")
    (tmp_path / "d.doc").touch()
    assert "found suffix '.doc', allowed: .csv, .tsv" in message_of(of.read_texts, tmp_path / "d.doc")


def test_what_does_not_fit_is_one_line(base, adapter: Adapter, tmp_path: Path, no_hub: None) -> None:
    folder, rows = adapter(), of.rows_of(TEXTS)
    assert "adapter_config.json: no such file" in message_of(of.apply, tmp_path / "none", rows)
    assert "--base: no such folder" in message_of(of.apply, folder, rows, tmp_path / "none")
    assert "does not fit the base model" in message_of(of.apply, folder, rows, base("deberta"))
    settings = json.loads((folder / "adapter_config.json").read_text())
    write_json(folder / "adapter_config.json", settings | {"base_model_name_or_path": "some/where"})
    said = message_of(of.apply, folder, rows)
    assert "base model 'some/where' can't be loaded" in said and said.endswith("which made the adapter")
    tensors = read_tensors(folder / "adapter_model.safetensors")
    deeper = {key.replace(f"layer.{LAYERS - 1}", f"layer.{LAYERS}"): value.clone() for key, value in tensors.items()}
    write_tensors(folder / "adapter_model.safetensors", tensors | deeper)
    assert f"layer.{LAYERS}." in message_of(of.apply, folder, rows, base("bert"))
    write_tensors(folder / "adapter_model.safetensors", {k: v for k, v in tensors.items() if ".lora_" in k})
    assert "no classifier among its tensors" in message_of(of.apply, folder, rows)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")  # pickles are not read
    assert "adapter_model.safetensors: no such file" in message_of(of.apply, folder, rows)
    write_json(folder / "adapter_config.json", settings | {"task_type": "CAUSAL_LM"})
    assert "task_type: found 'CAUSAL_LM', allowed: 'SEQ_CLS'" in message_of(of.apply, folder, rows)
