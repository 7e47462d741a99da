"""Scoring: W0 + (alpha / r) B A and back, and one line when base and zoo do not fit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from condpdiff.common.errors import UserError
from condpdiff.text.score import Scorer
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.layout import Entry, Layout, unflatten
from tests.stand_ins import make_rows, make_task, make_zoo

ROWS = {"select": make_rows(9, 2), "validation": make_rows(21, 3)}


@pytest.fixture
def zoo(base) -> Zoo:
    return make_zoo(base("bert"), "bert")[0]


@pytest.fixture
def scorer(base, zoo: Zoo) -> Scorer:
    return Scorer(base("bert"), zoo, make_task(), ROWS, tokens=64)


def with_entries(zoo: Zoo, change: Any) -> Zoo:
    return replace(zoo, layout=Layout(tuple(change(entry) for entry in zoo.layout.entries)))


def test_merged_weight_is_w0_plus_scaled_ba(scorer: Scorer, zoo: Zoo) -> None:
    scorer.merge(zoo.theta[0])
    tensors = unflatten(zoo.theta[0], zoo.layout)
    assert len(scorer.modules) == 8
    for name, module in scorer.modules.items():
        a, b = (tensors[f"base_model.model.{name}.lora_{m}.weight"] for m in "AB")
        expected = scorer.base_weights[name].cpu() + 4.0 / 2 * b @ a
        torch.testing.assert_close(module.weight.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_merges_do_not_add_up_and_none_restores_w0_to_the_bit(scorer: Scorer, zoo: Zoo) -> None:
    scorer.merge(zoo.theta[1])
    once = {name: module.weight.clone() for name, module in scorer.modules.items()}
    scorer.merge(zoo.theta[0])
    scorer.merge(zoo.theta[1])
    assert all(torch.equal(module.weight, once[name]) for name, module in scorer.modules.items())
    scorer.merge(None)
    assert all(torch.equal(module.weight, scorer.base_weights[name]) for name, module in scorer.modules.items())


def test_predictions_stand_in_the_order_of_the_rows(base) -> None:
    folder = base("bert")
    rows = make_rows(21, 3, "regression")
    zoo, _ = make_zoo(folder, "bert", num_outputs=1)
    scorer = Scorer(folder, zoo, make_task("regression"), {"validation": rows}, tokens=64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = [
        scorer.model(**tokenizer(text, return_tensors="pt").to(scorer.device)).logits.item() for text in rows["text"]
    ]
    found = scorer.predict("validation")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(found) > 0.1


def test_class_is_the_largest_logit(scorer: Scorer, zoo: Zoo) -> None:
    scorer.merge(zoo.theta[2])
    batches = scorer.batches["validation"]
    logits = batches.in_split_order([scorer.model(**inputs).logits for inputs in batches.inputs])
    assert scorer.predict("validation").tolist() == logits.argmax(1).tolist()


def test_predict_all_is_merge_and_predict_of_each(scorer: Scorer, zoo: Zoo) -> None:
    found = scorer.predict_all(zoo.theta, "test")
    assert {split: len(rows) for split, rows in found.items()} == {"select": 6, "validation": 6}
    for i, theta in enumerate(zoo.theta):
        scorer.merge(theta)
        for split in ROWS:
            assert np.array_equal(found[split][i], scorer.predict(split))


def test_predict_all_can_be_asked_for_one_split_alone(scorer: Scorer, zoo: Zoo) -> None:
    assert set(scorer.predict_all(zoo.theta[:2], "test", ["select"])) == {"select"}
    assert scorer.passes == {"select": 2 * 9}


def test_losses_are_the_cross_entropy_of_each_row(scorer: Scorer, zoo: Zoo) -> None:
    scorer.merge(zoo.theta[2])
    logits, labels = torch.tensor(scorer.outputs("validation")), torch.tensor(scorer.labels["validation"]).long()
    found = scorer.losses("validation")
    assert found.dtype == np.float64
    expected = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-9)


def test_losses_of_huge_logits_are_finite(scorer: Scorer) -> None:
    outputs = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype=np.float32)
    np.testing.assert_allclose(scorer.losses_of(outputs, np.array([0.0, 0.0])), [0, 2e4])


def test_losses_of_regression_are_squared_errors(base) -> None:
    zoo, _ = make_zoo(base("bert"), "bert", num_outputs=1)
    rows = {"loss": make_rows(9, 0, "regression")}
    scorer = Scorer(base("bert"), zoo, make_task("regression"), rows, tokens=64)
    expected = (scorer.predict("loss").astype(np.float64) - rows["loss"]["label"].to_numpy()) ** 2
    np.testing.assert_allclose(scorer.losses("loss"), expected)


def test_rows_that_went_through_the_model_are_counted(scorer: Scorer, zoo: Zoo) -> None:
    scorer.predict_all(zoo.theta, "test")
    scorer.losses("select")
    assert scorer.passes == {"select": 7 * 9, "validation": 6 * 21}


def test_score_is_the_tasks_metrics_on_the_split(scorer: Scorer) -> None:
    labels = ROWS["validation"]["label"].to_numpy()
    assert scorer.score("validation", labels) == {"accuracy": 100.0, "f1": 100.0}
    assert scorer.score("validation", 1 - labels) == {"accuracy": 0.0, "f1": 0.0}


def test_regression_predicts_values(base) -> None:
    zoo, _ = make_zoo(base("bert"), "bert", num_outputs=1)
    rows = {"validation": make_rows(9, 0, "regression")}
    scorer = Scorer(base("bert"), zoo, make_task("regression"), rows, tokens=64)
    found = scorer.predict("validation")
    assert found.shape == (9,)
    assert len(np.unique(found.round(4))) > 2
    assert set(scorer.score("validation", found)) == {"pearson", "spearman"}


def test_head_of_the_zoo_is_put_in(scorer: Scorer, zoo: Zoo) -> None:
    assert torch.equal(scorer.model.classifier.weight.cpu(), zoo.head["base_model.model.classifier.weight"])


def test_theta_of_another_length_is_refused(scorer: Scorer, zoo: Zoo) -> None:
    with pytest.raises(UserError, match="theta: found 3 weights"):
        scorer.merge(torch.zeros(3))


def test_module_that_the_base_lacks_is_named(base, zoo: Zoo) -> None:
    other = with_entries(zoo, lambda e: replace(e, key=e.key.replace("layer.1", "layer.9")))
    with pytest.raises(UserError, match=r"data/base: no module 'bert.encoder.layer.9.*rerun finetune-collect"):
        Scorer(base("bert"), other, make_task(), ROWS, 64)


def test_module_of_another_shape_or_kind_is_named(base, zoo: Zoo) -> None:
    def wider(e: Entry) -> Entry:
        return replace(e, shape=(2, 99)) if e.shape[0] == 2 else e

    with pytest.raises(UserError, match=r"found \[16, 16\], allowed: \[16, 99\]"):
        Scorer(base("bert"), with_entries(zoo, wider), make_task(), ROWS, 64)
    embedding = with_entries(
        zoo,
        lambda e: replace(e, key=e.key.replace("encoder.layer.0.attention.self.query", "embeddings.word_embeddings")),
    )
    with pytest.raises(UserError, match="word_embeddings: found Embedding, allowed: Linear"):
        Scorer(base("bert"), embedding, make_task(), ROWS, 64)


def test_head_that_the_base_does_not_have_is_named(base, zoo: Zoo) -> None:
    zoo.head["base_model.model.score.weight"] = torch.zeros(2)
    with pytest.raises(UserError, match=r"head.safetensors: found 'score.weight', which the base model does not have"):
        Scorer(base("bert"), zoo, make_task(), ROWS, 64)
