"""Between two tasks: both ends are the tasks themselves, every point starts from the same noise, all are scored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from condpdiff.common.settings import parse
from condpdiff.diffusion.conditions import unit_variance as unit
from condpdiff.diffusion.settings import Condition
from condpdiff.evaluate.interpolation import Between, Point, mixed, pairs, score_points, weights
from condpdiff.evaluate.settings import Interpolate
from tests.evaluate import stand_ins_chain as chain
from tests.evaluate.stand_ins_chain import LAYOUT, SAMPLE, D, make_generator, make_theta

LAMBDAS = [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.fixture
def between() -> Between:
    one, other = chain.frames_of(make_theta("a", "b")).values()
    return Between(make_generator(), (one, other), SAMPLE, count=3, seed=7, what="a to b")


@pytest.fixture
def y() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return unit(torch.randn(4, D, generator=random)), unit(torch.randn(4, D, generator=random))


def test_weights_go_straight_from_one_lora_to_the_other() -> None:
    one, other = torch.randn(2, LAYOUT.K), torch.randn(2, LAYOUT.K)
    points = weights(one, other, LAMBDAS)
    assert [(point.kind, point.at) for point in points] == [("weights", at) for at in LAMBDAS]
    assert torch.equal(points[0].theta, one) and torch.equal(points[-1].theta, other)
    torch.testing.assert_close(points[1].theta, 0.75 * one + 0.25 * other)


def test_mixed_conditions_have_the_length_of_encoded_ones(y: tuple[Tensor, Tensor]) -> None:
    for at in LAMBDAS:
        torch.testing.assert_close(mixed(*y, at).norm(dim=1), torch.full((4,), D**0.5))
    torch.testing.assert_close(mixed(*y, 0), y[0])
    torch.testing.assert_close(mixed(*y, 1), y[1])
    middle = mixed(*y, 0.5)
    torch.testing.assert_close((middle * y[0]).sum(1), (middle * y[1]).sum(1))  # as near to one as to the other
    assert mixed(y[0], -y[0], 0.5).isfinite().all()  # opposite ones have nothing between, and still numbers
    eye = torch.eye(3)  # one-hot vectors keep length 1
    torch.testing.assert_close(mixed(eye[:1], eye[1:2], 0.5), torch.tensor([[0.5**0.5, 0.5**0.5, 0.0]]))
    few = y[1][:3]  # of unequal numbers of draws every one has a partner
    torch.testing.assert_close(mixed(y[0], few, 1.0), few[[0, 1, 2, 0]])


def test_every_point_starts_from_the_same_noise(between: Between, y: tuple[Tensor, Tensor]) -> None:
    seen: list[Tensor] = []
    model = between.generator.model
    original = model.forward
    model.forward = lambda z_t, *rest, **more: seen.append(z_t) or original(z_t, *rest, **more)
    points = [*between.condition(y, LAMBDAS), *between.unseen([{"a": y[0] + 1}, {"b": y[1][:2]}])]
    first = seen[:: len(seen) // len(points)]
    assert len(first) == 7
    assert all(torch.equal(noise, first[0]) for noise in first)
    assert not torch.equal(replace(between, seed=8).draw(y[0], 0.0), points[0].theta)


def test_ends_are_the_tasks_and_between_them_are_mixed_statistics(between: Between, y: tuple[Tensor, Tensor]) -> None:
    points = between.condition(y, LAMBDAS)
    assert [(point.kind, point.at) for point in points] == [("condition", at) for at in LAMBDAS]
    for end, task in ((0, 0), (-1, 1)):
        random = torch.Generator().manual_seed(7)
        z, _ = between.generator.latents(y[task], (0.5, 1.0), 3, between.settings, random, "")
        expected = between.generator.to_theta(z, between.frames[task])
        torch.testing.assert_close(points[end].theta, expected, rtol=1e-4, atol=1e-4)
    assert len({tuple(row.tolist()) for point in points for row in point.theta}) == 15
    found, one, other = (between.draw(y[0], at) for at in (0.25, 0.0, 1.0))
    torch.testing.assert_close(found, 0.75 * one + 0.25 * other)
    outside = torch.ones(LAYOUT.K, dtype=torch.bool)
    outside[between.frames[0].positions] = False
    soup = 0.75 * between.frames[0].soup + 0.25 * between.frames[1].soup
    torch.testing.assert_close(found[:, outside], soup[outside].expand(3, -1))
    (point,) = between.unseen([{}, {"unseen_examples": y[0]}])  # the second task's own place, another condition
    assert (point.kind, point.at) == ("unseen_examples", 1.0)
    assert torch.equal(point.theta, other)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("task_info", ["weights"] * 3 + ["condition"] * 3 + ["unseen_wording"] * 2),
        ("one_hot", ["weights"] * 3 + ["condition"] * 3),
        ("learnable", ["weights"] * 3),  # there is nothing between two indices
    ],
)
def test_a_pair_s_points_are_those_of_its_kind(tmp_path: Path, kind: str, expected: list[str]) -> None:
    theta, loaded = make_theta("a", "b", "c"), []
    data = chain.save_chain(tmp_path / "data", theta, {task: torch.randn(4, D) for task in theta})
    settings = parse(Interpolate, {"points": 3, "pairs": 2, "samples": 2}, "params.yaml", "interpolate")
    condition = parse(Condition, {"kind": kind, "encoder": "minilm", "model": "x"}, "params.yaml", "condition")

    def load_encoder(asked: Condition) -> Any:
        loaded.append(asked)
        return lambda inputs: torch.ones(len(inputs), D)

    inputs = {task: {"unseen_wording": ["new"]} if kind == "task_info" else {} for task in theta}
    found = list(pairs(data, inputs, settings, SAMPLE, condition, load_encoder))
    assert [pair for pair, _ in found] == [("a", "b"), ("b", "c")]
    assert [point.kind for point in found[0][1]] == expected
    assert torch.equal(found[1][1][2].theta, theta["c"][:2])
    assert bool(loaded) == (kind == "task_info")
    if kind != "learnable":  # another pair starts from another noise
        assert not torch.equal(found[0][1][5].theta, found[1][1][3].theta)


def test_every_lora_is_scored_on_both_tasks_and_the_first_of_a_point_is_kept(tmp_path: Path) -> None:
    points = [Point("weights", 0.0, torch.tensor([[1.0], [2.0]])), Point("condition", 0.5, torch.tensor([[3.0]]))]
    found = score_points(points, chain.FakePanel("films", "ratings"), tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "scores.csv"), found.reset_index(drop=True))
    assert list(found) == ["kind", "lambda", "sample", "task", "score"]
    assert found.values.tolist() == [
        ["weights", 0.0, 0, "films", 1.0], ["weights", 0.0, 1, "films", 2.0], ["condition", 0.5, 0, "films", 3.0],
        ["weights", 0.0, 0, "ratings", 2.0], ["weights", 0.0, 1, "ratings", 3.0], ["condition", 0.5, 0, "ratings", 4.0],
    ]  # fmt: skip
    assert (tmp_path / "kept").read_text() == "[('weights', 0.0, 1), ('condition', 0.5, 3)]"
