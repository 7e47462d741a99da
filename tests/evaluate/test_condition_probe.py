"""What the condition does: the same noise in every cell, no condition at all, and statistics of tasks never seen."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from condpdiff.autoencoder.settings import Autoencoder
from condpdiff.common.matrices import Resident, whole
from condpdiff.common.settings import parse
from condpdiff.diffusion.settings import Condition, Ldm
from condpdiff.evaluate import condition_probe as probe
from condpdiff.evaluate.condition_probe import Known, Probing, guesses, train_generator, unseen_rows
from condpdiff.evaluate.settings import Probe
from condpdiff.generate.generator import Draw, Generator
from condpdiff.zoo.settings import SHARED
from tests.evaluate import stand_ins_chain as chain
from tests.evaluate.stand_ins_chain import CHOSEN, LAYOUT, POSITIONS, SAMPLE, D, make_generator, make_theta

TASKS = ("a", "b", "c")
AE = {
    "arch": "conv1d", "latent_channels": 2, "latent_length": 8, "patch": 8, "width": 4, "depth": 1, "noise": 0.001,
    "input_noise": 0.001, "steps": 2, "batch_size": 4, "lr": 1e-3,
}  # fmt: skip
LDM = {
    "channels": [8, 12, 16], "prediction": "sample", "condition_dropout": 0.1, "performance": "rank",
    "performance_dropout": 0.2, "ema": 0.9, "steps": 3, "batch_size": 4, "lr": 1e-3,
}  # fmt: skip


def ae(**changes: object) -> Autoencoder:
    return parse(Autoencoder, AE | changes, "params.yaml", "ae")


def ldm(**changes: object) -> Ldm:
    return parse(Ldm, LDM | changes, "params.yaml", "ldm")


def make_known(theta: dict[str, Tensor], method: str = "task") -> Known:
    frames = chain.frames_of(theta, method)
    random = torch.Generator().manual_seed(1)
    y = {t: torch.randn(4, D, generator=random) for t in theta}
    w = {t: Resident(frames[t].to_w(x)) for t, x in theta.items()}
    return Known(w, CHOSEN, frames, y, dict.fromkeys(theta, np.linspace(0, 1, 8, dtype=np.float32)))


@pytest.fixture(scope="module")
def known() -> Known:
    """Three tasks of random checkpoints over the layers 0 and 1."""
    return make_known(make_theta(*TASKS))


@pytest.fixture
def generator() -> Generator:
    return make_generator()


@pytest.fixture(scope="module")
def data(known: Known, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stages before wrote."""
    data = chain.save_chain(tmp_path_factory.mktemp("run") / "data", make_theta(*TASKS), dict(known.y))
    (data / "performance").mkdir()
    for task in TASKS:
        pd.DataFrame({"checkpoint": range(8), "loss": range(8)}).to_csv(data / f"performance/{task}.csv", index=False)
    return data


@pytest.fixture
def draw() -> Draw:
    return Draw(SAMPLE, count=3, seed=7)


class Recorder:
    """Scores LoRAs by how many came before, and keeps them."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, theta: Tensor | None) -> float:
        self.seen.append(theta)
        return float(len(self.seen))


def test_every_condition_starts_from_the_same_noise_and_performance(
    generator: Generator, draw: Draw, known: Known
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []  # z_t and p of every pass
    original = generator.model.forward
    generator.model.forward = lambda *rest, **more: seen.append((rest[0], more["p"])) or original(*rest, **more)
    drawn = [draw(generator, y, "") for y in (*known.y.values(), known.y["a"][:1])]
    starts = seen[::4]
    assert len(starts) == 4 and starts[0][1].min() >= 0.5
    assert all(torch.equal(z_t, starts[0][0]) and torch.equal(p, starts[0][1]) for z_t, p in starts)
    assert len({tuple(row.tolist()) for w in drawn[:3] for row in w}) == 9
    assert not torch.equal(replace(draw, seed=8)(generator, known.y["a"], ""), drawn[0])


def test_every_condition_nonsense_and_none_are_asked(
    generator: Generator, draw: Draw, known: Known, data: Path
) -> None:
    nonsense = torch.randn(2, D)
    found = probe.conditioned(data, known.y, nonsense, ldm(), draw)
    assert list(found) == [*TASKS, probe.NONSENSE, probe.DROPPED]
    torch.testing.assert_close(found["b"], draw(generator, known.y["b"], ""))
    torch.testing.assert_close(found[probe.NONSENSE], draw(generator, nonsense, ""))
    model, drop = generator.model, torch.ones(3, dtype=torch.bool)
    model.forward = lambda z_t, t, y, p=None: type(model).forward(model, z_t, t, y, drop, p)  # the null condition
    torch.testing.assert_close(found[probe.DROPPED], draw(generator, known.y["a"], ""))
    # No nonsense for kinds without it, and no null condition that was never trained.
    assert list(probe.conditioned(data, known.y, None, ldm(condition_dropout=0), draw)) == list(TASKS)


def test_a_cell_is_a_condition_s_loras_with_a_task_s_statistics(known: Known) -> None:
    w, score = {name: torch.randn(2, CHOSEN.K) for name in ("a", "b", probe.NONSENSE)}, Recorder()
    rows = probe.swap_rows(w, known.frames, "task", "b", score)
    cells = [("a", "b"), ("b", "b"), (probe.NONSENSE, "b"), ("b", "a"), ("b", "c")]
    assert [row[:4] for row in rows] == [(*cell, "b", sample) for cell in cells for sample in range(2)]
    assert [row[4] for row in rows] == list(range(1, 11))
    for (condition, statistics, _, sample, _), theta in zip(rows, score.seen, strict=True):
        assert torch.equal(theta, known.frames[statistics].to_theta(w[condition])[sample])
    for method in SHARED:  # statistics that all tasks share are not swapped
        assert {row[1] for row in probe.swap_rows(w, known.frames, method, "b", score)} == {"b"}


@pytest.mark.parametrize("delta_w", [0.0, 0.1])
def test_what_a_task_left_out_holds_changes_nothing(known: Known, draw: Draw, delta_w: float) -> None:
    others = {t: known.w[t] for t in TASKS if t != "b"}
    w = others | {"b": Resident(1e3 * torch.randn(5, CHOSEN.K))}
    changed = replace(known, w=w, y=known.y | {"b": torch.randn(1, D)}, p=known.p | {"b": np.zeros(5, np.float32)})

    def drawn(known: Known, left_out: str) -> Tensor:
        generator = train_generator(known.without(left_out, "task"), ae(delta_w=delta_w), ldm())
        return draw(generator, known.y["a"], "")

    found = drawn(known, "b")
    assert torch.equal(found, drawn(changed, "b"))
    assert not torch.equal(found, drawn(known, "c"))
    bare = train_generator(replace(known, p=None).without("b", "task"), ae(), ldm(performance="none", steps=1))
    assert not bare.model.config["performance"]


def test_statistics_of_all_tasks_are_taken_again_without_the_task_left_out() -> None:
    theta = make_theta(*TASKS)
    alone = make_known({t: theta[t] for t in TASKS if t != "b"}, "batch")
    for own in (theta["b"], 50 - 7 * theta["b"]):  # whatever the task left out holds
        others = make_known(theta | {"b": own}, "batch").without("b", "batch")
        assert list(others.w) == list(others.frames) == list(others.y) == ["a", "c"]
        for task in ("a", "c"):
            found, expected = others.frames[task], alone.frames[task]
            torch.testing.assert_close(found.statistics.mean, expected.statistics.mean, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.statistics.std, expected.statistics.std, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(whole(others.w[task]), whole(alone.w[task]), rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(found.to_theta(whole(others.w[task]))[:, POSITIONS], theta[task][:, POSITIONS])
            assert torch.equal(found.soup, expected.soup)
    for method in ("task", "none"):  # it has no part in these
        known = make_known(theta, method)
        assert all(known.without("b", method).frames[task] is known.frames[task] for task in ("a", "c"))


def test_guessed_statistics_are_the_others_mean_or_weigh_a_task_by_how_near_its_condition_is(known: Known) -> None:
    here, a, c = torch.zeros(1, D), torch.zeros(2, D), torch.zeros(1, D)
    here[0, 0] = 1
    a[:, :2] = torch.tensor([0.8, 0.6])  # cosine 0.8
    c[:, :2] = torch.tensor([1.2, 1.6])  # cosine 0.6, twice as long
    found = guesses(replace(known.without("b", "task"), y={"a": a, "c": c}), here)
    near = 1 / (1 + np.exp(-0.2 / probe.TEMPERATURE))
    one, other = known.frames["a"], known.frames["c"]
    for name, weight in (("mean", 0.5), ("similar", near)):
        guess = found[name]
        for have, x, y in (
            (guess.soup, one.soup, other.soup),
            (guess.statistics.mean, one.statistics.mean, other.statistics.mean),
            (guess.statistics.std, one.statistics.std, other.statistics.std),
        ):
            torch.testing.assert_close(have, weight * x + (1 - weight) * y)
        torch.testing.assert_close(guess.to_theta(torch.zeros(1, CHOSEN.K))[0], guess.soup)


def test_a_task_left_out_is_held_against_what_needs_no_generator(known: Known) -> None:
    w, score, soup = torch.randn(2, CHOSEN.K), Recorder(), known.frames["a"].soup
    guessed = guesses(known.without("a", "task"), known.y["a"])
    rows = unseen_rows(w, soup, guessed, "task", "a", score)
    assert [row[:4] for row in rows] == [
        ("a", "no_lora", "", 0), ("a", "soup", "own", 0),
        ("a", "soup_of_others", "mean", 0), ("a", "soup_of_others", "similar", 0),
        ("a", "condpdiff", "mean", 0), ("a", "condpdiff", "mean", 1),
        ("a", "condpdiff", "similar", 0), ("a", "condpdiff", "similar", 1),
    ]  # fmt: skip
    assert [row[4] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    expected = [soup, guessed["mean"].soup, guessed["similar"].soup]
    expected += [*guessed["mean"].to_theta(w), *guessed["similar"].to_theta(w)]
    assert score.seen[0] is None and torch.equal(torch.stack(score.seen[1:]), torch.stack(expected))


@pytest.mark.parametrize("method", SHARED)
def test_statistics_that_all_tasks_share_are_not_guessed_but_other_layers_are(method: str) -> None:
    w, score, known = torch.randn(1, CHOSEN.K), Recorder(), make_known(make_theta(*TASKS), method)
    others = known.without("a", method)
    rows = unseen_rows(w, known.frames["a"].soup, guesses(others, known.y["a"]), method, "a", score)
    assert [row[1:3] for row in rows if row[1] == "condpdiff"] == [("condpdiff", "shared")]
    torch.testing.assert_close(score.seen[-1][POSITIONS], others.frames["b"].to_theta(w)[0][POSITIONS])
    outside = torch.ones(LAYOUT.K, dtype=torch.bool)
    outside[POSITIONS] = False
    mean = (known.frames["b"].soup + known.frames["c"].soup) / 2
    torch.testing.assert_close(score.seen[-1][outside], mean[outside])


def probing(kind: str = "task_info", **settings: int) -> tuple[Probing, list[Any]]:
    """And what was encoded, and whose panels were loaded."""
    asked: list[Any] = []
    keys = {"samples": 2, "unseen": 1, "ldm_steps": 2} | settings
    condition = parse(Condition, {"kind": kind, "encoder": "minilm", "model": "x"}, "params.yaml", "condition")
    found = Probing(
        parse(Probe, keys, "params.yaml", "probe"), "batch", ae(), condition, ldm(), SAMPLE,
        load_encoder=lambda settings: lambda inputs: (asked.append(inputs), torch.ones(1, D))[1],
        load_panel=lambda name: (asked.append(name), chain.FakePanel(name))[1],
    )  # fmt: skip
    return found, asked


def tables(out: Path) -> Mapping[str, pd.DataFrame]:
    return {name: pd.read_csv(out / f"{name}.csv", keep_default_na=False) for name in ("swap", "unseen")}


def test_every_task_is_scored_under_every_condition_and_the_first_ones_are_left_out(data: Path, tmp_path: Path) -> None:
    stage, asked = probing()
    stage.write(data, list(TASKS), ["nonsense"], tmp_path)
    assert asked == [["nonsense"], *TASKS]
    found = tables(tmp_path)
    assert list(found["swap"]) == probe.SWAP and list(found["unseen"]) == probe.UNSEEN
    assert found["swap"].groupby("task").size().to_dict() == dict.fromkeys(TASKS, 2 * (3 + 2))
    assert set(found["unseen"]["task"]) == {"a"}
    arms = ["no_lora", "soup", "soup_of_others", "soup_of_others", "condpdiff", "condpdiff"]
    assert found["unseen"]["arm"].tolist() == arms
    stage, asked = probing("one_hot", unseen=3)  # has no nonsense, and leaves none out
    stage.write(data, list(TASKS), [], tmp_path)
    assert asked == list(TASKS) and list(map(len, tables(tmp_path).values())) == [3 * 2 * (2 + 2), 0]
    stage, asked = probing(samples=0)
    stage.write(data, list(TASKS), ["nonsense"], tmp_path)
    assert asked == [] and list(map(len, tables(tmp_path).values())) == [0, 0]
