"""Conditions: their shapes by kind, and the texts behind them."""

from pathlib import Path

import pytest
import torch

from condpdiff.condition import conditions
from condpdiff.condition_file import FILE, load_conditions, save_conditions
from condpdiff.params.condition import Condition
from condpdiff.params.section import parse
from tests.stand_ins import HIDDEN

DESCRIBED = {
    "films": {"task_info": ["tell good films", "is the film good"], "few_shot": ["good", "bad", "fine"]},
    "plots": {"task_info": ["was the plot poor"], "few_shot": ["awful", "lovely"]},
}


def make_settings(kind: str, model: str = "package:nothing") -> Condition:
    return parse(Condition, {"kind": kind, "encoder": "minilm", "model": model}, "params.yaml", "condition")


def test_one_hot_is_one_row_of_the_identity_a_task_and_needs_no_encoder() -> None:
    y, texts = conditions(make_settings("one_hot"), DESCRIBED)
    assert y["films"].tolist() == [[1, 0]]
    assert y["plots"].tolist() == [[0, 1]]
    assert texts == {}


def test_learnable_is_the_index_of_the_task_and_needs_no_encoder() -> None:
    y, texts = conditions(make_settings("learnable"), DESCRIBED)
    assert y["films"].tolist() == [[0.0]]
    assert y["plots"].tolist() == [[1.0]]
    assert texts == {}


@pytest.mark.parametrize(
    ("kind", "counts"), [("task_info", (2, 1)), ("few_shot", (3, 2)), ("task_info_few_shot", (6, 2))]
)
def test_text_kinds_give_one_vector_a_text(kind: str, counts: tuple[int, int], base) -> None:
    y, texts = conditions(make_settings(kind, f"local-dir:{base('bert')}"), DESCRIBED)
    for task, count in zip(DESCRIBED, counts, strict=True):
        assert y[task].shape == (count, HIDDEN)
        assert y[task].dtype == torch.float32
        assert len(texts[task]) == count
    assert not torch.allclose(y["films"][0], y["plots"][0], atol=1e-3)


def test_every_description_meets_every_two_shot_draw() -> None:
    texts = condition_texts("task_info_few_shot", DESCRIBED["films"])
    assert texts == [
        f"{info}\n{shot}" for info in ("tell good films", "is the film good") for shot in ("good", "bad", "fine")
    ]


def test_saved_conditions_come_back_in_the_order_of_the_run(tmp_path: Path) -> None:
    y = {"films": torch.randn(6, 4), "plots": torch.randn(2, 4)}
    save_conditions(tmp_path / FILE, y)
    found = load_conditions(tmp_path / FILE, ["plots", "films"])
    assert list(found) == ["plots", "films"]
    assert all(torch.equal(found[task], y[task]) for task in y)
