"""Between two tasks: both ends are the tasks themselves, and every point starts from the same noise."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from condpdiff.autoencoder.latents import Scale
from condpdiff.autoencoder.models import build
from condpdiff.common.settings import parse
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.process import Process
from condpdiff.evaluate.interpolation import Between, mixed, weights
from condpdiff.generate.generator import Generator
from condpdiff.generate.settings import Sample
from condpdiff.zoo.normalization import Moments, statistics_of
from condpdiff.zoo.normalized import Frame
from tests.stand_ins import make_layout

LAYOUT = make_layout()
D = 6
LAMBDAS = [0.0, 0.25, 0.5, 0.75, 1.0]
SAMPLE = {"count": 6, "scheduler": "ddim", "steps": 6, "guidance": 1.0, "performance": [0.5, 1.0]}


def unit(rows: Tensor) -> Tensor:
    """As encoders leave them."""
    return torch.nn.functional.normalize(rows, dim=1) * D**0.5


@pytest.fixture
def between() -> Between:
    """An untrained chain with random weights, and the frames of two tasks over the layers 0 and 1."""
    torch.manual_seed(0)
    chosen, positions = LAYOUT.select_layers((0, 1))
    frames = []
    for shift in (0.0, 5.0):
        theta = shift + torch.randn(5, LAYOUT.K)
        statistics = statistics_of("task", {"a": Moments.of([theta[:, positions]])}, chosen)["a"]
        frames.append(Frame(statistics, theta.double().mean(0).float(), positions))
    decoder = build({"arch": "conv1d", "K": chosen.K, "C": 2, "L": 8, "patch": 8, "width": 4, "depth": 1})
    denoiser = Denoiser(2, 8, (8, 12, 16), 1, D, performance=True).eval().requires_grad_(False)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # some start at zero, and would ignore the condition
    scale = Scale(torch.zeros(2, 8), torch.ones(2, 8))
    generator = Generator(denoiser, Process("sample", "linear"), decoder.eval().requires_grad_(False), scale)
    settings = parse(Sample, SAMPLE, "params.yaml", "sample")
    return Between(generator, (frames[0], frames[1]), settings, count=3, seed=7, what="a to b")


@pytest.fixture
def y() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return unit(torch.randn(4, D, generator=random)), unit(torch.randn(4, D, generator=random))


def test_weights_go_straight_from_one_lora_to_the_other() -> None:
    one, other = torch.randn(2, LAYOUT.K), torch.randn(2, LAYOUT.K)
    points = weights(one, other, LAMBDAS)
    assert [(point.kind, point.at) for point in points] == [("weights", at) for at in LAMBDAS]
    assert torch.equal(points[0].theta, one)
    assert torch.equal(points[-1].theta, other)
    torch.testing.assert_close(points[1].theta, 0.75 * one + 0.25 * other)


def test_mixed_conditions_have_the_length_of_encoded_ones(y: tuple[Tensor, Tensor]) -> None:
    for at in LAMBDAS:
        torch.testing.assert_close(mixed(*y, at).norm(dim=1), torch.full((4,), D**0.5))
    torch.testing.assert_close(mixed(*y, 0), y[0])
    torch.testing.assert_close(mixed(*y, 1), y[1])
    middle = mixed(*y, 0.5)
    torch.testing.assert_close((middle * y[0]).sum(1), (middle * y[1]).sum(1))  # as near to one as to the other


def test_mixed_one_hot_vectors_keep_length_1() -> None:
    eye = torch.eye(3)
    torch.testing.assert_close(mixed(eye[:1], eye[1:2], 0.5), torch.tensor([[0.5**0.5, 0.5**0.5, 0.0]]))
    assert torch.equal(mixed(eye[:1], eye[1:2], 0), eye[:1])


def test_of_unequal_numbers_of_draws_every_one_has_a_partner(y: tuple[Tensor, Tensor]) -> None:
    few = y[1][:3]
    torch.testing.assert_close(mixed(y[0], few, 1.0), few[[0, 1, 2, 0]])
    torch.testing.assert_close(mixed(few, y[0], 1.0), y[0])


def test_opposite_conditions_have_nothing_between_and_still_numbers() -> None:
    one = unit(torch.ones(1, D))
    assert mixed(one, -one, 0.5).isfinite().all()


def test_every_point_starts_from_the_same_noise(between: Between, y: tuple[Tensor, Tensor]) -> None:
    seen: list[Tensor] = []
    model = between.generator.model
    original = model.forward
    model.forward = lambda z_t, *rest, **more: seen.append(z_t) or original(z_t, *rest, **more)
    points = [*between.condition(y, LAMBDAS), between.unseen("a", y[0] + 1, 0), between.unseen("b", y[1][:2], 1)]
    first = seen[:: len(seen) // len(points)]
    assert len(first) == 7
    assert all(torch.equal(noise, first[0]) for noise in first)
    other = replace(between, seed=8)
    assert not torch.equal(other.draw(y[0], 0.0), points[0].theta)


def test_at_both_ends_a_task_s_own_condition_is_denormalised_by_its_own_statistics(
    between: Between, y: tuple[Tensor, Tensor]
) -> None:
    points = between.condition(y, LAMBDAS)
    assert [(point.kind, point.at) for point in points] == [("condition", at) for at in LAMBDAS]
    for end, task in ((0, 0), (-1, 1)):
        random = torch.Generator().manual_seed(7)
        z, _ = between.generator.latents(y[task], (0.5, 1.0), 3, between.settings, random, "")
        expected = between.generator.to_theta(z, between.frames[task])
        torch.testing.assert_close(points[end].theta, expected, rtol=1e-4, atol=1e-4)
    assert len({tuple(row.tolist()) for point in points for row in point.theta}) == 15


def test_between_the_statistics_are_interpolated_in_all_layers(between: Between, y: tuple[Tensor, Tensor]) -> None:
    found = between.draw(y[0], 0.25)
    one, other = (between.draw(y[0], at) for at in (0.0, 1.0))
    torch.testing.assert_close(found, 0.75 * one + 0.25 * other)
    outside = torch.ones(LAYOUT.K, dtype=torch.bool)
    outside[between.frames[0].positions] = False
    soup = 0.75 * between.frames[0].soup + 0.25 * between.frames[1].soup
    torch.testing.assert_close(found[:, outside], soup[outside].expand(3, -1))


def test_unseen_is_the_task_s_own_place_under_another_condition(between: Between, y: tuple[Tensor, Tensor]) -> None:
    point = between.unseen("unseen_examples", y[1], 1)
    assert (point.kind, point.at) == ("unseen_examples", 1.0)
    assert torch.equal(point.theta, between.draw(y[1], 1.0))
    assert not torch.allclose(point.theta, between.draw(y[0], 1.0), atol=1e-4)
