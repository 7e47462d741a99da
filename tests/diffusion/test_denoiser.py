"""The denoiser: an output that depends on time, condition and null condition; mu(y) and its spread; conditions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from condpdiff.common.files import write_tensors
from condpdiff.common.settings import parse
from condpdiff.diffusion.conditions import FILE, REACH, Projection, conditions, load_conditions
from condpdiff.diffusion.denoiser import Denoiser, Mean
from condpdiff.diffusion.settings import Condition
from tests.tensors import random

SIZES: dict[str, Any] = {"C": 2, "L": 8, "channels": (8, 12, 16), "blocks": 1, "d_cond": 6}


def make(**changes: object) -> Denoiser:
    """A denoiser whose zeroed last layers got random weights, as a few training steps would give."""
    torch.manual_seed(0)
    model = Denoiser(**SIZES | changes)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def near(one: Tensor, two: Tensor) -> bool:
    return torch.allclose(one, two, atol=1e-3)


Z, T, Y = random(1, 2, 8).expand(3, -1, -1), torch.full((3,), 500), random(3, 6)
INDICES = torch.tensor([[0.0], [1.0], [0.0]])


@pytest.mark.parametrize(("C", "L", "blocks"), [(4, 32, 2), (3, 12, 1)])
def test_prediction_has_the_shape_of_the_latent_and_is_zero_before_training(C: int, L: int, blocks: int) -> None:  # noqa: N803
    z, t, sizes = random(2, C, L), torch.tensor([0, 999]), {"C": C, "L": L, "blocks": blocks}
    assert make(**sizes)(z, t, Y[:2]).shape == z.shape
    assert not Denoiser(**SIZES | sizes)(z, t, Y[:2]).any()


def test_other_timestep_condition_or_null_condition_gives_another_prediction_row_by_row() -> None:
    model = make()
    out = model(Z, torch.tensor([10, 900, 10]), Y[:1].expand(3, -1))
    assert not near(out[0], out[1])
    torch.testing.assert_close(out[0], out[2])
    plain, mixed = model(Z, T, Y), model(Z, T, Y, torch.tensor([True, False, True]))
    assert not near(plain[0], plain[1]) and not near(mixed[0], plain[0])
    torch.testing.assert_close(mixed[1], plain[1])
    torch.testing.assert_close(mixed[0], mixed[2])
    torch.testing.assert_close(model(Z, T, Y, torch.zeros(3, dtype=torch.bool)), plain)


def test_learnable_condition_is_an_index_into_learned_vectors_and_the_config_builds_the_same_network() -> None:
    model = make(tasks=3, performance=True)
    out = model(Z, T, INDICES)
    assert not near(out[0], out[1])
    torch.testing.assert_close(out[0], out[2])
    out[0].sum().backward()
    assert (model.tau.table.weight.grad.abs().sum(1) > 0).tolist() == [True, False, False]
    again = Denoiser(**model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(Z, T, INDICES), out)


def test_performance_not_a_number_asks_for_none_row_by_row() -> None:
    model, y = make(performance=True), Y[:1].expand(3, -1)
    none, mixed = model(Z, T, y), model(Z, T, y, p=torch.tensor([torch.nan, 0.0, 1.0]))
    torch.testing.assert_close(mixed[0], none[0])
    assert not near(mixed[1], mixed[0]) and not near(mixed[1], mixed[2])


# --- mu(y) --------------------------------------------------------------------------------------

SHAPE, SPREAD = (2, 4), 0.05


def made(tasks: int, learnable: bool) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Latents a hundred spreads apart, three conditions a task (or its index), and the tasks' means."""
    centres = 5 * random(tasks, *SHAPE, seed=1)
    z = {str(q): centres[q] + SPREAD * random(50, *SHAPE, seed=q) for q in range(tasks)}
    where = random(tasks, 12, seed=2)
    y = {q: where[int(q)] + 1e-3 * random(3, 12, seed=int(q)) for q in z}
    return z, {q: torch.tensor([[float(q)]]) for q in z} if learnable else y, centres


def fitted(z: dict[str, Tensor], y: dict[str, Tensor], tasks: int = 0, network: bool = False, ridge=1e-6) -> Mean:
    mean = Mean(12, SHAPE, tasks, network)
    mean.fit(z, y, ridge)
    return mean


@pytest.mark.parametrize("learnable", [False, True])
def test_means_of_tasks_are_found_within_their_spread_and_residuals_of_unit_spread_lead_back(learnable: bool) -> None:
    z, y, _ = made(6, learnable)
    mean = fitted(z, y, 6 if learnable else 0)
    off = [(mean(y[q]) - z[q].mean(0)).square().mean().sqrt() for q in z]
    assert max(off) < 0.25 * SPREAD
    r = torch.stack([mean.residual(z[q], y[q][:1].expand(50, -1)) for q in z])
    torch.testing.assert_close(r.std((0, 1)), torch.ones(SHAPE), rtol=0.1, atol=0)
    torch.testing.assert_close(r.mean((0, 1)), torch.zeros(SHAPE), rtol=0, atol=0.1)
    torch.testing.assert_close(mean.latent(r[1], y["1"][:1].expand(50, -1)), z["1"], rtol=1e-5, atol=1e-5)


def test_a_mean_between_conditions_lies_between_tasks_and_a_penalty_draws_it_to_all() -> None:
    z, y, centres = made(2, False)
    mean, drawn = fitted(z, y), fitted(z, y, ridge=1e3)
    middle = centres.mean(0).expand(3, -1, -1)
    torch.testing.assert_close(mean((y["0"] + y["1"]) / 2), middle, rtol=0, atol=0.05)
    torch.testing.assert_close(drawn(y["0"]), middle, rtol=0, atol=0.05)
    assert float(drawn.spread.mean()) > 20 * float(mean.spread.mean())  # what the mean misses is spread
    network = fitted(z, y, network=True)  # starts at zero, and stands still in reconstruction
    assert network.network is not None and torch.equal(network(y["0"]), mean(y["0"]))
    assert not any(p.requires_grad for each in (mean, network) for p in each.parameters())


@pytest.mark.parametrize("learnable", [False, True])
def test_one_task_has_its_mean_whatever_is_asked(learnable: bool) -> None:
    z, y = 3 + SPREAD * random(50, *SHAPE), random(1, 12).expand(3, -1)
    mean = fitted({"a": z}, {"a": torch.zeros(1, 1) if learnable else y}, int(learnable), ridge=1e-3)
    asked = torch.zeros(1, 1) if learnable else random(1, 12, seed=9)
    torch.testing.assert_close(mean(asked)[0], z.mean(0))
    torch.testing.assert_close(mean.spread.data, z.std(0, correction=0))


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
    write_tensors(tmp_path / FILE, y)
    found = load_conditions(tmp_path / FILE, ["plots", "films"])
    assert list(found) == ["plots", "films"]
    assert all(torch.equal(found[task], y[task]) for task in y)


def test_projection_gives_leading_axes_of_unit_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("condpdiff.diffusion.conditions.REACH", 100)
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


def test_a_condition_far_from_all_that_were_trained_on_keeps_its_direction_and_no_more() -> None:
    vectors = torch.randn(400, 64, generator=torch.Generator().manual_seed(0))
    projection = Projection.fit(vectors, 32)
    known, far = projection(vectors), projection(vectors[:1] * 30)
    assert (known.norm(dim=1) > 0.9 * REACH * 32**0.5).any() and far.norm().item() == pytest.approx(REACH * 32**0.5)
    assert torch.cosine_similarity(projection(vectors[:1] * 20), far).item() == pytest.approx(1, abs=1e-3)
