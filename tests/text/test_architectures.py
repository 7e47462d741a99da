"""Every kind of base model: its head is what its weights lack, and adapters reload to its logits."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from condpdiff.common.task import Data
from condpdiff.text.conditions import describe
from condpdiff.text.data import prepare
from condpdiff.text.finetune import TextFinetuning
from condpdiff.text.models import (
    check_tasks,
    load_model,
    load_tokenizer,
    peft_model,
    positions,
    target_modules,
)
from condpdiff.text.score import Scorer
from condpdiff.zoo.adapters import write_adapter
from condpdiff.zoo.checkpoints import Zoo, load_zoo, unflatten
from condpdiff.zoo.collect import collect_zoo
from tests.messages import message_of
from tests.stand_ins import CAUSAL, MODELS, make_collect, make_rows, make_task, save_random

ROWS = make_rows(8, 2)
SOURCE = {"type": "files", "train": "train.jsonl", "validation": "validation.jsonl"}
LANGUAGE: dict[str, Any] = {
    "data": {"kind": "language", "columns": {"text": "text"}, "source": SOURCE},
    "metrics": ["log_likelihood"],
    "finetune": {"head_lr": 0.0},
}


def fine_tuned(base: Path, folder: Path, **changes: Any) -> tuple[Zoo, Scorer, Path]:
    """A short real fine-tuning, a scorer with its last state merged, and that state as an adapter."""
    for split, seed in (("train", 0), ("validation", 1)):
        make_rows(24, seed).to_parquet(folder / f"{split}.parquet", index=False)
    task = make_task(**changes)
    collect_zoo(TextFinetuning("films", task, make_collect(max_checkpoints=2), folder, base), folder / "zoo")
    zoo = load_zoo(folder / "zoo")
    scorer = Scorer(base, zoo, task, {"select": ROWS}, 256)
    scorer.merge(zoo.theta[-1])
    (folder / "adapter").mkdir()
    tensors = {**unflatten(zoo.theta[-1], zoo.layout), **zoo.head}
    write_adapter(folder / "adapter", tensors, zoo.config, str(base), "")
    return zoo, scorer, folder / "adapter"


@pytest.mark.parametrize("model_type", MODELS)
def test_the_head_is_what_weights_lack_and_an_adapter_gives_the_merged_logits(model_type: str, tmp_path: Path) -> None:
    base = save_random(model_type, tmp_path / "base")
    fresh, head = load_model(base, 2)
    assert head == MODELS[model_type][1]
    check_positions(base, fresh, model_type)
    zoo, scorer, adapter = fine_tuned(base, tmp_path)
    assert zoo.config["modules_to_save"] == sorted(head) and zoo.head
    assert not torch.equal(zoo.theta[0], zoo.theta[1])
    torch.manual_seed(7)  # a new head that the adapter must replace
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    plain.config.pad_token_id = 0
    model, tokenizer = PeftModel.from_pretrained(plain, str(adapter)).eval(), load_tokenizer(base)
    with torch.inference_mode():  # one row after the other, so that nothing is padded
        alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in ROWS["text"]])
    torch.testing.assert_close(alone, torch.from_numpy(scorer.outputs("select")), atol=1e-4, rtol=1e-4)


def check_positions(base: Path, model: Any, model_type: str) -> None:
    """Texts longer than the model has positions for are refused before training."""
    most = positions(model)
    assert (most is None) == (model_type == "xlnet")
    length = most or 600
    with torch.inference_mode():
        ids = torch.full((1, length), 5)
        assert model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.isfinite().all()
    check_tasks(base, {"films": make_task(finetune={"max_length": length})}, 2, "auto")
    if most:
        message = message_of(check_tasks, base, {"films": make_task(finetune={"max_length": most + 1})}, 2, "auto")
        found = f"found {most + 1}, allowed: at most {most}, as the base model has positions for"
        assert message == f"configs/tasks/films.yaml: finetune.max_length: {found}"


@pytest.mark.parametrize("model_type", CAUSAL)
def test_a_causal_language_model_has_no_head_and_is_scored_by_its_loss(model_type: str, tmp_path: Path) -> None:
    base = save_random(model_type, tmp_path / "base", AutoModelForCausalLM)
    zoo, scorer, adapter = fine_tuned(base, tmp_path, **LANGUAGE)
    assert not zoo.head and zoo.config["modules_to_save"] == []
    found, tokenizer = scorer.losses("select"), load_tokenizer(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)).eval()
    for text, loss in zip(ROWS["text"], found, strict=True):
        tokens = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            assert float(model(**tokens, labels=tokens["input_ids"]).loss) == pytest.approx(loss, abs=1e-4)
    likelihood = scorer.score("select", scorer.predict("select"))["log_likelihood"]
    assert likelihood == pytest.approx(-100 * found.mean(), rel=1e-4)


def test_modules_are_those_of_a_known_family_or_given_and_linear(base) -> None:
    assert target_modules("gpt_neo", ["value", "query"]) == ["query", "value"]
    place = "params.yaml: collect.target_modules:"
    message = message_of(target_modules, "gpt_neo", "auto")
    assert message.startswith(f"{place} found 'auto' for model type 'gpt_neo'") and "bert, deberta" in message
    wrong = {"valu": "'valu': found no such module", "word_embeddings": "'word_embeddings': found Embedding"}
    for name, found in wrong.items():
        said = message_of(peft_model, base("bert"), 2, 0, 1, 1.0, ["query", name])
        assert said.startswith(f"{place} {found}") and "query, value" in said


def test_a_language_task_has_texts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "validation"):
        texts = pd.DataFrame({"text": [f"{split} {i}" for i in range(6)]})
        texts.to_json(f"{split}.jsonl", orient="records", lines=True)
    task = make_task(**LANGUAGE)
    frames = prepare(task.data, "poems", Data(max_train=9, max_validation=9))
    assert list(frames["train"].columns) == ["text", "text_pair", "label"] and len(frames["train"]) == 6
    assert all(shot.count("Example: train") == 2 for shot in describe(task, frames["train"])["few_shot"])
    labelled = LANGUAGE | {"data": {**LANGUAGE["data"], "labels": ["a", "b"]}}
    assert "kind: found language, allowed: with neither labels" in message_of(make_task, **labelled)


def test_tokenizer_without_a_token_to_pad_with_is_refused_before_training(tmp_path: Path) -> None:
    base = save_random("gpt2", tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token = None
    tokenizer.save_pretrained(base)
    said = "params.yaml: base.name: its tokenizer has no token to pad with, nor one that ends a text"
    assert message_of(check_tasks, base, {"films": make_task()}, 2, "auto") == said


def test_head_of_another_kind_of_task_in_the_base_s_config_does_not_stand_in_the_way(tmp_path: Path) -> None:
    """A published classifier may say that it is a regression."""
    base = save_random("bert", tmp_path / "base")
    AutoConfig.from_pretrained(base, num_labels=1, problem_type="regression").save_pretrained(base)
    model, head = load_model(base, 3)
    assert (model.config.num_labels, head) == (3, ["classifier"])
    assert model.config.problem_type == "single_label_classification"
