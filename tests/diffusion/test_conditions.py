"""Conditions: their shapes by kind."""

from pathlib import Path
from typing import Any

import pytest
import torch

from condpdiff.common.settings import parse
from condpdiff.diffusion.conditions import FILE, Projection, conditions, load_conditions, save_conditions
from condpdiff.diffusion.settings import Condition


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("one_hot", {"films": [[1, 0]], "plots": [[0, 1]]}),  # one row of the identity a task
        ("learnable", {"films": [[0]], "plots": [[1]]}),  # the index of the task
        ("task_info", {"films": [[1, 1], [3, 1]], "plots": [[2, 1]]}),  # one vector an input
    ],
)
def test_conditions_by_kind_come_back_in_the_order_of_the_run(kind: str, expected: Any, tmp_path: Path) -> None:
    def load_encoder(settings: Condition) -> Any:
        """Of the lengths of texts."""
        assert kind == "task_info"  # the others need none
        return lambda texts: torch.tensor([[float(len(text)), 1.0] for text in texts])

    settings = parse(Condition, {"kind": kind, "encoder": "minilm", "model": "package:nothing"}, "params.yaml")
    y = conditions(settings, {"films": ["a", "bcd"], "plots": ["ef"]}, load_encoder)
    assert {task: each.tolist() for task, each in y.items()} == expected
    save_conditions(tmp_path / FILE, y)
    found = load_conditions(tmp_path / FILE, ["plots", "films"])
    assert list(found) == ["plots", "films"]
    assert all(torch.equal(found[task], y[task]) for task in y)


def test_projection_gives_leading_axes_of_unit_variance_and_comes_back(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 3, generator=generator)
    units = 10.0 ** torch.arange(-3, 4)  # of an encoder's numbers
    vectors = 5 * units + units * (hidden @ torch.randn(3, 7, generator=generator))
    projection = Projection.fit(vectors, 3)
    y = projection(vectors)
    torch.testing.assert_close(y.T @ y / 39, torch.eye(3), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), rtol=0, atol=1e-4)
    shown = torch.linalg.lstsq(y, hidden - hidden.mean(0)).solution  # nothing of what varies is lost
    torch.testing.assert_close(y @ shown, hidden - hidden.mean(0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(projection(vectors + units)[0] - y[0], projection(vectors + units)[9] - y[9])  # linear
    assert Projection.fit(vectors, 50)(vectors).shape == (40, 3)  # no axis of rounding
    projection.save(tmp_path / "projection")
    assert torch.equal(Projection.load(tmp_path / "projection")(vectors), y)
