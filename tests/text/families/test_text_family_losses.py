"""A text family's LoRAs, many at once: losses and accuracies as a merged LoRA makes them; what needs no LoRA."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from condpdiff.common.task import Finetune
from condpdiff.text.families.losses import SHARPNESS, Family, fixed_head
from condpdiff.text.unseen import evaluate
from condpdiff.text.unseen.evaluate import Judge, accuracy, best_threshold, classifier_accuracy, cosines
from condpdiff.zoo.checkpoints import unflatten
from condpdiff.zoo.many import finetune_many
from condpdiff.zoo.placed import PREFIX
from tests.messages import message_of
from tests.stand_ins import HIDDEN, make_collect, make_rows
from tests.text.families.test_wordnet import make_family

TASK = make_family()
LAST = ["1.attention.self.query", "1.attention.output.dense"]
"""Modules of the second of two layers."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three members of 20 rows."""
    folder = tmp_path_factory.mktemp("rows")
    pd.concat([make_rows(20, q).assign(member=q) for q in range(3)]).to_parquet(folder / "train.parquet", index=False)
    return folder


@pytest.fixture(scope="module", params=["auto", LAST])
def family(request: pytest.FixtureRequest, rows: Path, base) -> Family:
    return Family(TASK, make_collect(target_modules=request.param), rows, base("bert"))


def drawn(family: Family) -> Tensor:
    return 0.3 * torch.randn(3, family.layout.K, generator=torch.Generator().manual_seed(0))


def test_logits_are_those_of_the_merged_model_though_its_lower_layers_ran_before(family: Family, base) -> None:
    theta, texts = drawn(family), ["the good film", "a very bad plot was", "awful"]
    found = family.classifier(theta, family.classifier.hidden(texts))
    model, tokenizer = AutoModel.from_pretrained(base("bert")).eval(), AutoTokenizer.from_pretrained(base("bert"))
    bare = {name: value.clone() for name, value in model.state_dict().items()}
    for text, one, logits in zip(texts, theta, found, strict=True):
        parts, merged = unflatten(one, family.layout), dict(bare)
        for key in [key for key in parts if ".lora_A." in key]:
            name = key.removeprefix(PREFIX).replace("lora_A.", "")
            merged[name] = bare[name] + 2 * parts[key.replace("lora_A", "lora_B")] @ parts[key]
        model.load_state_dict(merged)
        with torch.no_grad():
            pooled = model(**tokenizer(text, return_tensors="pt")).last_hidden_state.mean(1)
        alone = SHARPNESS * torch.nn.functional.normalize(pooled, dim=1) @ fixed_head(HIDDEN).T
        torch.testing.assert_close(logits[None], alone, rtol=1e-3, atol=1e-3)


def test_member_s_loss_is_its_own_and_its_draws_are_those_of_seed_and_step(family: Family) -> None:
    theta, losses = drawn(family), family.losses([2, 1, 0], 4, 0)
    beside = losses(theta, 5)
    for i, q in enumerate([2, 1, 0]):
        torch.testing.assert_close(family.losses([q], 4, 0)(theta[i : i + 1], 5)[0], beside[i], rtol=1e-4, atol=1e-5)
    assert torch.equal(beside, losses(theta, 5)) and not torch.equal(beside, losses(theta, 6))
    assert not torch.equal(beside, family.losses([2, 1, 0], 4, 1)(theta, 5))
    few = family.losses([0], 4, 0, most=4)  # all four rows, whatever the step
    torch.testing.assert_close(few(theta[:1], 1), few(theta[:1], 2), rtol=1e-4, atol=1e-5)


def test_fine_tuning_brings_every_member_s_loss_down_under_the_head_that_stands_still(family: Family) -> None:
    head = fixed_head(384)
    torch.testing.assert_close(head @ head.T, torch.eye(2), atol=1e-6, rtol=0)
    assert torch.equal(head, fixed_head(384))
    start, losses = family.start.repeat(3, 1), family.losses([0, 1, 2], 20, 0)
    assert family.count == 3 and SHARPNESS > 0
    tuned = finetune_many(losses, start, family.trained, Finetune(steps=25, batch_size=20, lr=0.02), "films")
    with torch.no_grad():
        assert (losses(tuned, 99) < 0.9 * losses(start, 99)).all()


def test_model_of_other_layers_and_modules_that_it_lacks_are_one_line(rows: Path, base) -> None:
    found = message_of(Family, TASK, make_collect(), rows, base("deberta"))
    assert found == ("params.yaml: base.name: found model type 'deberta', allowed: bert, roberta, electra (families)")
    found = message_of(Family, TASK, make_collect(target_modules=["no_such"]), rows, base("bert"))
    assert found.startswith("params.yaml: collect.target_modules: found ['no_such']")


def test_each_member_is_scored_by_its_own_lora_in_its_order(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "BATCH", 8)
    theta, judge = drawn(family), Judge(family.classifier, family.rows)
    found = judge.predict(theta)
    for q, mine in enumerate(family.rows):
        with torch.no_grad():
            alone = family.classifier(theta[q : q + 1], family.classifier.hidden(mine["text"].tolist())).argmax(1)
        assert found[q].tolist() == alone.tolist()
    others = [mine.iloc[::-1].assign(label=mine["label"].to_numpy()) for mine in family.rows]
    assert judge.of != Judge(family.classifier, others).of  # what is kept of one is not the other's
    labels = np.stack([mine["label"] for mine in family.rows])
    assert judge(theta).tolist() == pytest.approx([100 * np.mean(found[q] == labels[q]) for q in range(3)])


def test_threshold_is_right_for_as_many_rows_as_any_can_be() -> None:
    two = [([[0.1, 0.5], [0.6, 0.9]], [[0, 0], [1, 1]], 4), ([[0.9, 0.1]], [[0, 1]], 1)]
    for values, labels, right in (*two, ([[0.1, 0.2]], [[1, 1]], 2), ([[0.1, 0.2]], [[0, 0]], 2)):
        x, y = np.array(values), np.array(labels, dtype=float)
        assert ((x > best_threshold(x, y)) == y).sum() == right


def test_cosine_is_of_each_member_s_own_description_and_a_classifier_learns_from_its_own_rows() -> None:
    random = torch.Generator().manual_seed(0)
    told, texts = torch.randn(2, 8, generator=random), torch.randn(2, 40, 8, generator=random)
    found = cosines(texts, told)
    assert found[1, 3] == pytest.approx(float(torch.cosine_similarity(texts[1, 3], told[1], dim=0)), abs=1e-6)
    labels = (found > 0).astype(float)
    learned = classifier_accuracy(texts, labels, texts, labels)
    assert learned.shape == (2,) and (learned > 90).all()
    assert accuracy(labels, 1 - labels).tolist() == [0, 0]
