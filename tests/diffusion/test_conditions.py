"""Conditions: their shapes by kind."""

from pathlib import Path

import torch

from condpdiff.common.settings import parse
from condpdiff.diffusion.conditions import FILE, conditions, load_conditions, save_conditions
from condpdiff.diffusion.settings import Condition


def make_settings(kind: str, model: str = "package:nothing") -> Condition:
    return parse(Condition, {"kind": kind, "encoder": "minilm", "model": model}, "params.yaml", "condition")


def encode_lengths(settings: Condition):
    """An encoder that gives the lengths of its texts."""
    return lambda texts: torch.tensor([[float(len(text)), 1.0] for text in texts])


def no_encoder(settings: Condition):
    raise AssertionError("this kind needs no encoder")


def test_one_hot_is_one_row_of_the_identity_a_task_and_needs_no_encoder() -> None:
    y = conditions(make_settings("one_hot"), {"films": [], "plots": []}, no_encoder)
    assert y["films"].tolist() == [[1, 0]]
    assert y["plots"].tolist() == [[0, 1]]


def test_learnable_is_the_index_of_the_task_and_needs_no_encoder() -> None:
    y = conditions(make_settings("learnable"), {"films": [], "plots": []}, no_encoder)
    assert y["films"].tolist() == [[0.0]]
    assert y["plots"].tolist() == [[1.0]]


def test_other_kinds_give_one_vector_an_input() -> None:
    y = conditions(make_settings("task_info"), {"films": ["a", "bcd"], "plots": ["ef"]}, encode_lengths)
    assert y["films"].tolist() == [[1, 1], [3, 1]]
    assert y["plots"].tolist() == [[2, 1]]


def test_saved_conditions_come_back_in_the_order_of_the_run(tmp_path: Path) -> None:
    y = {"films": torch.randn(6, 4), "plots": torch.randn(2, 4)}
    save_conditions(tmp_path / FILE, y)
    found = load_conditions(tmp_path / FILE, ["plots", "films"])
    assert list(found) == ["plots", "films"]
    assert all(torch.equal(found[task], y[task]) for task in y)
