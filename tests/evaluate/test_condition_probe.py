"""What the condition does: the same noise in every cell, no condition at all, other tasks' statistics."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from condpdiff.common.settings import parse
from condpdiff.diffusion.settings import Condition
from condpdiff.evaluate import condition_probe as probe
from condpdiff.evaluate.condition_probe import Probing
from condpdiff.evaluate.settings import Probe
from condpdiff.generate.generator import Draw, Generator
from condpdiff.zoo.settings import SHARED
from tests.evaluate import stand_ins_chain as chain
from tests.evaluate.stand_ins_chain import CHOSEN, SAMPLE, D, make_generator, make_theta

TASKS = ("a", "b", "c")
Y = {task: torch.randn(4, D, generator=torch.Generator().manual_seed(i)) for i, task in enumerate(TASKS)}


@pytest.fixture
def generator() -> Generator:
    return make_generator()


@pytest.fixture
def draw() -> Draw:
    return Draw(SAMPLE, count=3, seed=7)


class Recorder:
    """Scores LoRAs by how many came before, and keeps them."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, theta: Tensor) -> float:
        self.seen.append(theta)
        return float(len(self.seen))


def test_every_condition_starts_from_the_same_noise_and_performance(generator: Generator, draw: Draw) -> None:
    seen: list[tuple[Tensor, Tensor]] = []  # z_t and p of every pass
    original = generator.model.forward
    generator.model.forward = lambda *rest, **more: seen.append((rest[0], more["p"])) or original(*rest, **more)
    drawn = [draw(generator, y, "") for y in (*Y.values(), Y["a"][:1])]
    starts = seen[::4]
    assert len(starts) == 4 and starts[0][1].min() >= 0.5
    assert all(torch.equal(z_t, starts[0][0]) and torch.equal(p, starts[0][1]) for z_t, p in starts)
    assert len({tuple(row.tolist()) for w in drawn[:3] for row in w}) == 9
    assert not torch.equal(replace(draw, seed=8)(generator, Y["a"], ""), drawn[0])


def test_every_condition_nonsense_and_none_are_asked(generator: Generator, draw: Draw) -> None:
    model, nonsense = generator.model, torch.randn(2, D)
    weight = model.mean.weight.normal_()
    found = probe.conditioned(generator, {**Y, probe.NONSENSE: nonsense}, 0.1, draw)
    assert list(found) == [*TASKS, probe.NONSENSE, probe.DROPPED]
    torch.testing.assert_close(found["b"], draw(generator, Y["b"], ""))
    torch.testing.assert_close(found[probe.NONSENSE], draw(generator, nonsense, ""))
    assert list(probe.conditioned(generator, Y, 0, draw)) == list(TASKS)  # the null condition was never trained
    drop = torch.ones(3, dtype=torch.bool)
    model.forward = lambda z_t, t, y, p=None: type(model).forward(model, z_t, t, y, drop, p)  # the null condition
    weight.zero_()
    torch.testing.assert_close(found[probe.DROPPED], draw(generator, Y["a"], ""))


def test_a_cell_is_a_condition_s_loras_with_a_task_s_statistics() -> None:
    frames = chain.frames_of(make_theta(*TASKS))
    w, score = {name: torch.randn(2, CHOSEN.K) for name in ("a", "b", probe.NONSENSE)}, Recorder()
    rows = probe.swap_rows(w, frames, "task", "b", score)
    cells = [("a", "b"), ("b", "b"), (probe.NONSENSE, "b"), ("b", "a"), ("b", "c")]
    assert [row[:4] for row in rows] == [(*cell, "b", sample) for cell in cells for sample in range(2)]
    assert [row[4] for row in rows] == list(range(1, 11))
    for (condition, statistics, _, sample, _), theta in zip(rows, score.seen, strict=True):
        assert torch.equal(theta, frames[statistics].to_theta(w[condition])[sample])
    for method in SHARED:  # statistics that all tasks share are not swapped
        assert {row[1] for row in probe.swap_rows(w, frames, method, "b", score)} == {"b"}


def probing(kind: str = "task_info", samples: int = 2) -> tuple[Probing, list[Any]]:
    """And what was encoded, and whose panels were loaded."""
    asked: list[Any] = []
    condition = parse(Condition, {"kind": kind, "encoder": "minilm", "model": "x"}, "params.yaml", "condition")
    found = Probing(
        parse(Probe, {"samples": samples}, "params.yaml", "probe"), "task", condition, 0.1, SAMPLE,
        load_encoder=lambda settings: lambda inputs: (asked.append(inputs), torch.ones(1, D))[1],
        load_panel=lambda name: (asked.append(name), chain.FakePanel())[1],
    )  # fmt: skip
    return found, asked


@pytest.mark.parametrize(("kind", "nonsense", "conditions"), [("task_info", ["nonsense"], 5), ("one_hot", [], 4)])
def test_every_task_is_scored_under_every_condition(
    kind: str, nonsense: list[str], conditions: int, tmp_path: Path
) -> None:
    data = chain.save_chain(tmp_path / "data", make_theta(*TASKS), Y)
    stage, asked = probing(kind)
    stage.write(data, list(TASKS), lambda: nonsense, tmp_path)
    assert asked == [*([nonsense] if nonsense else []), *TASKS]
    found = pd.read_csv(tmp_path / "swap.csv")
    assert found.groupby("task").size().to_dict() == dict.fromkeys(TASKS, 2 * (conditions + 2))  # others' statistics


def test_with_no_samples_nothing_is_loaded(tmp_path: Path) -> None:
    stage, asked = probing(samples=0)
    stage.write(tmp_path / "nowhere", list(TASKS), lambda: pytest.fail("asked for nonsense"), tmp_path)
    assert asked == [] and (tmp_path / "swap.csv").read_text() == ",".join(probe.SWAP) + "\n"
