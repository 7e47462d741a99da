"""What the condition does: the same noise in every cell, no condition at all, other tasks' statistics.

On an untrained chain from noise to LoRAs over the layers 0 and 1 of a made-up layout, with random weights.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.models import SCALE, Scale
from condpdiff.common.files import write_tensors
from condpdiff.common.matrices import Resident
from condpdiff.common.settings import parse
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.conditions import FILE
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.settings import Condition
from condpdiff.evaluate import condition_probe as probe
from condpdiff.evaluate.condition_probe import Probing
from condpdiff.evaluate.settings import Probe
from condpdiff.generate.generator import Draw, Generator
from condpdiff.generate.settings import Sample
from condpdiff.zoo.normalized import Frame, Moments, save_frame, save_rows, statistics_of
from condpdiff.zoo.settings import SHARED
from tests.stand_ins import make_layout

LAYOUT = make_layout()
CHOSEN, POSITIONS = LAYOUT.select_layers((0, 1))
D = 6
SAMPLE = Sample(count=6, scheduler="ddim", steps=4, guidance=1.0, performance=(0.5, 1.0))
DECODER = {"arch": "conv1d", "K": CHOSEN.K, "C": 2, "L": 8, "patch": 8, "width": 4, "depth": 1}
DRAW = Draw(SAMPLE, count=3, seed=7)
TASKS = ("a", "b", "c")
Y = {task: torch.randn(4, D, generator=torch.Generator().manual_seed(i)) for i, task in enumerate(TASKS)}
RANDOM = torch.Generator().manual_seed(0)
THETA = {task: 3 * i + (1 + i) * torch.randn(8, LAYOUT.K, generator=RANDOM) for i, task in enumerate(TASKS)}
"""Checkpoints [8, K_all] of each task, of another mean and spread each."""


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    decoder = autoencoder.build(DECODER).eval().requires_grad_(False)
    model = Denoiser(2, 8, (8, 12, 16), 1, D, performance=True).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # some start at zero, and would ignore the condition
    return Generator(model, diffusion.Process("sample"), decoder, Scale(torch.zeros(2, 8), torch.ones(2, 8)))


def frames() -> dict[str, Frame]:
    statistics = statistics_of("task", {t: Moments.of([x[:, POSITIONS]]) for t, x in THETA.items()}, CHOSEN)
    return {t: Frame(statistics[t], x.double().mean(0).float(), POSITIONS) for t, x in THETA.items()}


@pytest.fixture
def data(generator: Generator, tmp_path: Path) -> Path:
    """The folders that the stages before leave."""
    data = tmp_path / "data"
    for folder in ("ldm", "autoencoder", "latents", "normalized", "conditions"):
        (data / folder).mkdir(parents=True)
    diffusion.save(data / "ldm" / diffusion.FILE, generator.model, generator.process)
    autoencoder.save(data / "autoencoder" / autoencoder.FILE, generator.decoder, DECODER)
    write_tensors(data / "latents" / SCALE, {"shift": generator.scale.shift, "scale": generator.scale.scale})
    write_tensors(data / "conditions" / FILE, Y)
    CHOSEN.save(data / "normalized")
    for task, frame in frames().items():
        save_rows(data / "normalized" / task, Resident(THETA[task]), frame)
        save_frame(data / "normalized" / task, frame)
    return data


def test_every_condition_starts_from_the_same_noise_and_performance(generator: Generator) -> None:
    seen: list[tuple[Tensor, Tensor]] = []  # z_t and p of every pass
    original = generator.model.forward
    generator.model.forward = lambda *rest, **more: seen.append((rest[0], more["p"])) or original(*rest, **more)
    drawn = [DRAW(generator, y, "") for y in (*Y.values(), Y["a"][:1])]
    starts = seen[::4]
    assert len(starts) == 4 and starts[0][1].min() >= 0.5
    assert all(torch.equal(z_t, starts[0][0]) and torch.equal(p, starts[0][1]) for z_t, p in starts)
    assert len({tuple(row.tolist()) for w in drawn[:3] for row in w}) == 9
    assert not torch.equal(replace(DRAW, seed=8)(generator, Y["a"], ""), drawn[0])


def test_every_condition_nonsense_and_none_are_asked(generator: Generator) -> None:
    model, nonsense = generator.model, torch.randn(2, D)
    weight = model.mean.weight.normal_()
    found = probe.conditioned(generator, {**Y, probe.NONSENSE: nonsense}, 0.1, DRAW)
    assert list(found) == [*TASKS, probe.NONSENSE, probe.DROPPED]
    torch.testing.assert_close(found["b"], DRAW(generator, Y["b"], ""))
    torch.testing.assert_close(found[probe.NONSENSE], DRAW(generator, nonsense, ""))
    assert list(probe.conditioned(generator, Y, 0, DRAW)) == list(TASKS)  # the null condition was never trained
    drop = torch.ones(3, dtype=torch.bool)
    model.forward = lambda z_t, t, y, p=None: type(model).forward(model, z_t, t, y, drop, p)  # the null condition
    weight.zero_()
    torch.testing.assert_close(found[probe.DROPPED], DRAW(generator, Y["a"], ""))


def test_a_cell_is_a_condition_s_loras_with_a_task_s_statistics() -> None:
    w, seen = {name: torch.randn(2, CHOSEN.K) for name in ("a", "b", probe.NONSENSE)}, []

    def score(theta: Tensor) -> float:
        seen.append(theta)
        return float(len(seen))

    rows = probe.swap_rows(w, frames(), "task", "b", score)
    cells = [("a", "b"), ("b", "b"), (probe.NONSENSE, "b"), ("b", "a"), ("b", "c")]
    assert [row[:4] for row in rows] == [(*cell, "b", sample) for cell in cells for sample in range(2)]
    assert [row[4] for row in rows] == list(range(1, 11))
    for (condition, statistics, _, sample, _), theta in zip(rows, seen, strict=True):
        assert torch.equal(theta, frames()[statistics].to_theta(w[condition])[sample])
    for method in SHARED:  # statistics that all tasks share are not swapped
        assert {row[1] for row in probe.swap_rows(w, frames(), method, "b", score)} == {"b"}


@pytest.mark.parametrize(
    ("kind", "samples", "conditions"), [("task_info", 2, 5), ("one_hot", 2, 4), ("task_info", 0, 0)]
)
def test_all_tasks_are_scored_under_all(kind: str, samples: int, conditions: int, data: Path, tmp_path: Path) -> None:
    asked: list[Any] = []  # what was encoded, and whose panels were loaded
    condition = parse(Condition, {"kind": kind, "encoder": "minilm", "model": "x"}, "params.yaml", "condition")
    stage = Probing(
        parse(Probe, {"samples": samples}, "params.yaml", "probe"), "task", condition, 0.1, SAMPLE,
        load_encoder=lambda settings: lambda inputs: (asked.append(inputs), torch.ones(1, D))[1],
        load_panel=lambda name: (asked.append(name), SimpleNamespace(score=lambda theta: float(theta[0])))[1],
    )  # fmt: skip
    nonsense = ["nonsense"] if kind == "task_info" else []
    stage.write(data if samples else tmp_path / "nowhere", list(TASKS), lambda: nonsense, tmp_path)
    found = pd.read_csv(tmp_path / "swap.csv")
    if samples:
        assert asked == [*([nonsense] if nonsense else []), *TASKS]
        assert found.groupby("task").size().to_dict() == dict.fromkeys(
            TASKS, 2 * (conditions + 2)
        )  # others' statistics
    else:  # nothing is loaded
        assert asked == [] and found.empty and list(found) == probe.SWAP
