"""Accuracies of many LoRAs at once, and of what needs none."""

import numpy as np
import pandas as pd
import pytest
import torch

from condpdiff.text.families.losses import Family
from condpdiff.text.unseen import evaluate
from condpdiff.text.unseen.evaluate import Judge, accuracy, best_threshold, classifier_accuracy, cosines
from tests.stand_ins import make_collect, make_rows
from tests.text.stand_ins_wordnet import make_family


def test_each_member_is_scored_by_its_own_lora_in_the_order_of_its_rows(tmp_path, base, monkeypatch) -> None:
    rows = [make_rows(10, q).assign(member=q) for q in range(3)]
    pd.concat(rows).to_parquet(tmp_path / "train.parquet", index=False)
    family = Family(make_family(), make_collect(), tmp_path, base("bert"))
    theta = 0.3 * torch.randn(3, family.layout.K, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(evaluate, "BATCH", 4)
    judge = Judge(family.classifier, rows)
    found = judge.predict(theta)
    for q, mine in enumerate(rows):
        hidden = family.classifier.hidden(mine["text"].tolist())
        with torch.no_grad():
            alone = family.classifier(theta[q : q + 1], hidden).argmax(1)
        assert found[q].tolist() == alone.tolist()
    labels = np.stack([mine["label"] for mine in rows])
    assert judge(theta).tolist() == pytest.approx([100 * np.mean(found[q] == labels[q]) for q in range(3)])


@pytest.mark.parametrize(
    ("values", "labels", "right"),
    [([[0.1, 0.5], [0.6, 0.9]], [[0, 0], [1, 1]], 4), ([[0.9, 0.1]], [[0, 1]], 1), ([[0.1, 0.2]], [[1, 1]], 2),
     ([[0.1, 0.2]], [[0, 0]], 2)],
)  # fmt: skip
def test_threshold_is_right_for_as_many_rows_as_any_can_be(values: list, labels: list, right: int) -> None:
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
