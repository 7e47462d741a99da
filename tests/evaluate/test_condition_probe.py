"""What the condition does: the same noise in every cell, no condition at all, and statistics of tasks never seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.latents import SCALE, Scale
from condpdiff.autoencoder.models import build
from condpdiff.autoencoder.settings import Autoencoder
from condpdiff.common.files import write_tensors
from condpdiff.common.matrices import Resident
from condpdiff.common.settings import parse
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.process import Process
from condpdiff.diffusion.settings import Ldm
from condpdiff.evaluate.condition_probe import (
    DROPPED,
    NONSENSE,
    TEMPERATURE,
    Draw,
    Known,
    conditioned,
    guesses,
    swap_rows,
    train_without,
    unseen_rows,
    without_condition,
)
from condpdiff.generate.generator import Generator
from condpdiff.generate.settings import Sample
from condpdiff.zoo.normalization import Moments, statistics_of
from condpdiff.zoo.normalized import Frame
from tests.stand_ins import make_layout

LAYOUT = make_layout()
CHOSEN, POSITIONS = LAYOUT.select_layers((0, 1))
TASKS = ("a", "b", "c")
D = 6
SAMPLE = {"count": 6, "scheduler": "ddim", "steps": 4, "guidance": 1.0, "performance": [0.5, 1.0]}
AE = {
    "arch": "conv1d", "latent_channels": 2, "latent_length": 8, "patch": 8, "width": 4, "depth": 1, "noise": 0.001,
    "input_noise": 0.001, "steps": 2, "batch_size": 4, "lr": 1e-3,
}  # fmt: skip
LDM = {
    "channels": [8, 12, 16], "blocks": 1, "prediction": "sample", "schedule": "linear", "min_snr": None,
    "conditioning": "film", "condition_dropout": 0.1, "performance": "rank", "performance_dropout": 0.2, "ema": 0.9,
    "steps": 100000, "batch_size": 4, "lr": 1e-3,
}  # fmt: skip


def ae(**changes: object) -> Autoencoder:
    return parse(Autoencoder, AE | changes, "params.yaml", "ae")


def ldm(**changes: object) -> Ldm:
    return parse(Ldm, LDM | changes, "params.yaml", "ldm")


@pytest.fixture
def known() -> Known:
    """Three tasks of random checkpoints over the layers 0 and 1."""
    random = torch.Generator().manual_seed(0)
    theta = {t: 3 * i + (1 + i) * torch.randn(8, LAYOUT.K, generator=random) for i, t in enumerate(TASKS)}
    statistics = statistics_of("task", {t: Moments.of([x[:, POSITIONS]]) for t, x in theta.items()}, CHOSEN)
    frames = {t: Frame(statistics[t], x.double().mean(0).float(), POSITIONS) for t, x in theta.items()}
    w = {t: Resident(frames[t].to_w(x)) for t, x in theta.items()}
    y = {t: torch.randn(4, D, generator=random) for t in TASKS}
    return Known(w, CHOSEN, frames, y, dict.fromkeys(TASKS, np.linspace(0, 1, 8, dtype=np.float32)))


@pytest.fixture
def generator() -> Generator:
    """An untrained chain with random weights."""
    torch.manual_seed(0)
    decoder = build({"arch": "conv1d", "K": CHOSEN.K, "C": 2, "L": 8, "patch": 8, "width": 4, "depth": 1})
    model = Denoiser(2, 8, (8, 12, 16), 1, D, performance=True).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # some start at zero, and would ignore the condition
    scale = Scale(torch.zeros(2, 8), torch.ones(2, 8))
    return Generator(model, Process("sample", "linear"), decoder.eval().requires_grad_(False), scale)


@pytest.fixture
def draw() -> Draw:
    return Draw(parse(Sample, SAMPLE, "params.yaml", "sample"), count=3, seed=7)


def spied(model: Denoiser) -> list[tuple[Tensor, Tensor | None]]:
    """z_t and p of every pass from now on."""
    seen: list[tuple[Tensor, Tensor | None]] = []
    original = model.forward
    model.forward = lambda *rest, **more: seen.append((rest[0], more.get("p"))) or original(*rest, **more)
    return seen


def test_every_condition_starts_from_the_same_noise_and_asks_for_the_same_performance(
    generator: Generator, draw: Draw, known: Known
) -> None:
    seen = spied(generator.model)
    drawn = [draw(generator, y, "") for y in (*known.y.values(), known.y["a"][:1])]
    starts = seen[::4]
    assert len(starts) == 4
    for z_t, p in starts:
        assert p is not None and p.min() >= 0.5
        assert torch.equal(z_t, starts[0][0]) and torch.equal(p, starts[0][1])
    assert len({tuple(row.tolist()) for w in drawn[:3] for row in w}) == 9
    assert not torch.equal(replace(draw, seed=8)(generator, known.y["a"], ""), drawn[0])


def test_without_condition_is_the_null_condition_whatever_is_asked_for(generator: Generator, known: Known) -> None:
    model, found = generator.model, without_condition(generator.model)
    z_t, t, p = torch.randn(3, 2, 8), torch.tensor([1, 500, 999]), torch.tensor([0.0, 0.5, 1.0])
    drop = torch.ones(3, dtype=torch.bool)
    for y in known.y.values():
        torch.testing.assert_close(found(z_t, t, y[:3], p=p), model(z_t, t, y[:3], drop, p))
    assert not torch.allclose(model(z_t, t, known.y["a"][:3], p=p), found(z_t, t, known.y["a"][:3], p=p), atol=1e-4)


def save(generator: Generator, data: Path) -> Path:
    for folder in ("ldm", "autoencoder", "latents"):
        (data / folder).mkdir(parents=True)
    diffusion.save(data / "ldm" / diffusion.FILE, generator.model, generator.process)
    config = {"arch": "conv1d", "K": CHOSEN.K, "C": 2, "L": 8, "patch": 8, "width": 4, "depth": 1}
    autoencoder.save(data / "autoencoder" / autoencoder.FILE, generator.decoder, config)
    write_tensors(data / "latents" / SCALE, {"shift": generator.scale.shift, "scale": generator.scale.scale})
    return data


def test_the_run_s_generator_is_asked_under_every_condition_nonsense_and_none(
    generator: Generator, draw: Draw, known: Known, tmp_path: Path
) -> None:
    data = save(generator, tmp_path / "data")
    nonsense = torch.randn(2, D)
    found = conditioned(data, known.y, nonsense, ldm(), draw)
    assert list(found) == [*TASKS, NONSENSE, DROPPED]
    torch.testing.assert_close(found["b"], draw(generator, known.y["b"], ""))
    torch.testing.assert_close(found[NONSENSE], draw(generator, nonsense, ""))
    bare = replace(generator, model=without_condition(generator.model))
    torch.testing.assert_close(found[DROPPED], draw(bare, known.y["c"], ""))


def test_no_nonsense_for_kinds_without_it_and_no_null_condition_that_was_never_trained(
    generator: Generator, draw: Draw, known: Known, tmp_path: Path
) -> None:
    data = save(generator, tmp_path / "data")
    assert list(conditioned(data, known.y, None, ldm(condition_dropout=0), draw)) == list(TASKS)


def test_a_cell_is_a_condition_s_loras_with_a_task_s_statistics(known: Known) -> None:
    w = {name: torch.randn(2, CHOSEN.K) for name in ("a", "b", NONSENSE)}
    seen: list[Tensor] = []

    def score(theta: Tensor | None) -> float:
        assert theta is not None
        seen.append(theta)
        return float(len(seen))

    rows = swap_rows(w, known.frames, "task", "b", score)
    cells = [("a", "b"), ("b", "b"), (NONSENSE, "b"), ("b", "a"), ("b", "c")]
    assert [row[:4] for row in rows] == [(*cell, "b", sample) for cell in cells for sample in range(2)]
    assert [row[4] for row in rows] == list(range(1, 11))
    for (condition, statistics, _, sample, _), theta in zip(rows, seen, strict=True):
        assert torch.equal(theta, known.frames[statistics].to_theta(w[condition])[sample])


@pytest.mark.parametrize("method", ["batch", "none"])
def test_statistics_that_all_tasks_share_are_not_swapped(known: Known, method: str) -> None:
    w = {name: torch.randn(1, CHOSEN.K) for name in ("a", "b")}
    assert {row[1] for row in swap_rows(w, known.frames, method, "b", lambda theta: 0.0)} == {"b"}


@pytest.mark.parametrize("delta_w", [0.0, 0.1])
def test_what_a_task_left_out_holds_changes_nothing(known: Known, draw: Draw, delta_w: float) -> None:
    others = {t: known.w[t] for t in TASKS if t != "b"}
    w = others | {"b": Resident(1e3 * torch.randn(5, CHOSEN.K))}
    changed = replace(known, w=w, y=known.y | {"b": torch.randn(1, D)}, p=known.p | {"b": np.zeros(5, np.float32)})
    drawn = [draw(train_without("b", k, ae(delta_w=delta_w), ldm(), 3), known.y["b"], "") for k in (known, changed)]
    assert torch.equal(*drawn)
    other = draw(train_without("a", known, ae(delta_w=delta_w), ldm(), 3), known.y["b"], "")
    assert not torch.equal(drawn[0], other)


def test_performance_may_be_left_out_of_training(known: Known, draw: Draw) -> None:
    generator = train_without("a", replace(known, p=None), ae(), ldm(performance="none"), 1)
    assert not generator.model.config["performance"]
    bare = replace(draw, settings=draw.settings.model_copy(update={"performance": None}))
    assert bare(generator, known.y["a"], "").isfinite().all()


def test_mean_statistics_are_the_others_mean_and_the_task_s_own_are_not_looked_at(known: Known) -> None:
    found = guesses(known, "b")["mean"]
    a, c = known.frames["a"], known.frames["c"]
    torch.testing.assert_close(found.statistics.mean, (a.statistics.mean + c.statistics.mean) / 2)
    torch.testing.assert_close(found.statistics.std, (a.statistics.std + c.statistics.std) / 2)
    torch.testing.assert_close(found.soup, (a.soup + c.soup) / 2)
    torch.testing.assert_close(found.to_theta(torch.zeros(1, CHOSEN.K))[0], found.soup)


def test_similar_statistics_weigh_a_task_by_how_near_its_condition_is(known: Known) -> None:
    here = torch.zeros(1, D)
    here[0, 0] = 1
    a = torch.zeros(2, D)
    a[:, 0], a[:, 1] = 0.8, 0.6  # cosine 0.8
    c = torch.zeros(1, D)
    c[0, 0], c[0, 1] = 1.2, 1.6  # cosine 0.6, twice as long
    found = guesses(replace(known, y={"a": a, "b": here, "c": c}), "b")["similar"]
    weight = 1 / (1 + np.exp(-0.2 / TEMPERATURE))
    one, other = known.frames["a"].soup, known.frames["c"].soup
    torch.testing.assert_close(found.soup, weight * one + (1 - weight) * other)


def test_a_task_left_out_is_held_against_what_needs_no_generator(known: Known) -> None:
    w = torch.randn(2, CHOSEN.K)
    seen: list[Tensor | None] = []
    guessed = guesses(known, "a")
    rows = unseen_rows(w, known.frames["a"], guessed, "task", "a", lambda theta: float(len(seen.append(theta) or seen)))
    assert [row[:4] for row in rows] == [
        ("a", "no_lora", "", 0), ("a", "soup", "own", 0),
        ("a", "soup_of_others", "mean", 0), ("a", "soup_of_others", "similar", 0),
        ("a", "condpdiff", "mean", 0), ("a", "condpdiff", "mean", 1),
        ("a", "condpdiff", "similar", 0), ("a", "condpdiff", "similar", 1),
    ]  # fmt: skip
    assert [row[4] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert seen[0] is None
    expected = [known.frames["a"].soup, guessed["mean"].soup, guessed["similar"].soup]
    expected += [*guessed["mean"].to_theta(w), *guessed["similar"].to_theta(w)]
    for theta, vector in zip(seen[1:], expected, strict=True):
        assert theta is not None and torch.equal(theta, vector)


@pytest.mark.parametrize("method", ["batch", "none"])
def test_statistics_that_all_tasks_share_are_not_guessed_but_other_layers_are(known: Known, method: str) -> None:
    w = torch.randn(1, CHOSEN.K)
    seen: list[Tensor | None] = []
    guessed, own = guesses(known, "a"), known.frames["a"]
    rows = unseen_rows(w, own, guessed, method, "a", lambda theta: float(len(seen.append(theta) or seen)))
    assert [row[1:3] for row in rows if row[1] == "condpdiff"] == [("condpdiff", "shared")]
    theta = seen[-1]
    assert theta is not None
    torch.testing.assert_close(theta[POSITIONS], own.to_theta(w)[0][POSITIONS])
    outside = torch.ones(LAYOUT.K, dtype=torch.bool)
    outside[POSITIONS] = False
    assert torch.equal(theta[outside], guessed["mean"].soup[outside])
