"""Task normalisation: statistics against float64, an exact way back for every method, and data/normalized."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from condpdiff.common.files import write_tensors
from condpdiff.common.matrices import Resident, RowFile, whole
from condpdiff.zoo import normalized as files
from condpdiff.zoo.normalized import EPS, Frame, Moments, Statistics, denormalise, moments_of, normalise, statistics_of
from condpdiff.zoo.settings import SHARED, Normalize
from tests.messages import message_of
from tests.stand_ins import make_layout
from tests.tensors import random

LAYOUT = make_layout()
METHODS = get_args(Normalize.model_fields["method"].annotation)


def zoos(count: int = 9) -> dict[str, Tensor]:
    """Two tasks of near-copies, the second of more: a coordinate's std is small beside its mean, as in a real zoo."""
    centres = random(2, LAYOUT.K) + torch.tensor([[0.5], [-2.0]])
    return {q: centres[i] + 1e-3 * random((i + 1) * count, LAYOUT.K, seed=i + 1) for i, q in enumerate("ab")}


def found_of(method: str, theta: dict[str, Tensor], rows: int = 4) -> dict[str, Statistics]:
    """Statistics from parts of a few rows."""
    return statistics_of(method, {task: Moments.of(t.split(rows)) for task, t in theta.items()}, LAYOUT)


def expected(method: str, theta: dict[str, Tensor], task: str) -> tuple[np.ndarray, np.ndarray]:
    """mean and std [K] in float64."""
    each = {name: rows.double().numpy() for name, rows in theta.items()}
    own, both = each[task], np.concatenate(list(each.values()))
    within = np.concatenate([rows - rows.mean(0) for rows in each.values()])
    parts, sizes = [own[:, e.slice] for e in LAYOUT.entries], [e.size for e in LAYOUT.entries]
    return {
        "none": (np.zeros(LAYOUT.K), np.ones(LAYOUT.K)),
        "task": (own.mean(0), own.std(0)),
        "task_scalar": (np.full(LAYOUT.K, own.mean()), np.full(LAYOUT.K, own.std())),
        "task_tensor": (np.repeat([p.mean() for p in parts], sizes), np.repeat([p.std() for p in parts], sizes)),
        "batch": (both.mean(0), both.std(0)),
        "shared": (np.mean([rows.mean(0) for rows in each.values()], 0), within.std(0)),
    }[method]


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("method", METHODS)
def test_statistics_equal_those_of_float64_and_denormalise_undoes_normalise(method: str, count: int) -> None:
    theta = zoos(count)
    both = found_of(method, theta)
    for task, found in both.items():
        mean, std = expected(method, theta, task)
        np.testing.assert_allclose(found.mean.numpy(), mean, rtol=1e-6, atol=1e-7)
        if count > 1:
            np.testing.assert_allclose(found.std.numpy(), std, rtol=1e-6)
        assert found.mean.dtype == found.std.dtype == torch.float32
        back = denormalise(normalise(theta[task], found), found)
        torch.testing.assert_close(back, theta[task], rtol=1e-6, atol=1e-6)
        assert torch.equal(theta[task], zoos(count)[task])  # touched by nothing
    assert torch.equal(both["a"].mean, both["b"].mean) == (method in SHARED)


def test_one_checkpoint_and_a_weight_that_never_moved_have_w_of_0_and_any_w_decodes_to_them() -> None:
    one, theta = zoos(1)["a"], zoos()["a"]
    theta[:, 3] = 0.25
    alone, still = found_of("task", {"a": one})["a"], found_of("task", {"a": theta})["a"]
    assert torch.equal(normalise(one, alone), torch.zeros(1, LAYOUT.K))
    back = denormalise(random(4, LAYOUT.K), alone)
    torch.testing.assert_close(back, one.expand(4, -1), rtol=0, atol=10 * EPS)
    w = normalise(theta, still)
    assert torch.isfinite(w).all()
    assert torch.equal(w[:, 3], torch.zeros(len(w)))
    assert float(denormalise(3 * torch.ones(1, LAYOUT.K), still)[0, 3]) == pytest.approx(0.25, abs=1e-7)


@pytest.mark.parametrize("sizes", [[200], [1] * 200, [1, 199], [64, 64, 64, 8]])
@pytest.mark.parametrize("width", [17, 7000])  # within a slice of coordinates, and beyond
def test_moments_of_parts_equal_two_passes_in_float64(sizes: list[int], width: int) -> None:
    """Of a small variation beside a large mean, in float32 and in float64, which stays as it was."""
    theta = 1000 + 1e-3 * random(200, width)
    for rows in (theta, theta.double()):
        values = rows.double().numpy().copy()
        found = Moments.of(rows.split(sizes))
        assert found.count == 200
        np.testing.assert_allclose(found.mean.numpy(), values.mean(0), rtol=1e-14)
        np.testing.assert_allclose(found.m2.numpy(), ((values - values.mean(0)) ** 2).sum(0), rtol=1e-7)
        np.testing.assert_allclose(found.statistics().std.numpy(), values.std(0), rtol=1e-6)
        np.testing.assert_array_equal(rows.double().numpy(), values)


# --- frame and files ----------------------------------------------------------------------------


def frame_of(theta: Tensor, layers: tuple[int, int] | None) -> tuple[Frame, Tensor]:
    """What the stage normalize makes of one task's theta [N, K_all]: its frame, and w [N, K]."""
    chosen, positions = LAYOUT.select_layers(layers)
    statistics = statistics_of("task", {"a": Moments.of([theta[:, positions]])}, chosen)["a"]
    frame = Frame(statistics, theta.double().mean(0).float(), positions)
    return frame, frame.to_w(theta)


@pytest.mark.parametrize("layers", [None, (1, 1), (0, 1)])
def test_chosen_layers_are_generated_and_the_rest_is_the_soup(layers: tuple[int, int] | None) -> None:
    theta = random(6, LAYOUT.K)
    frame, w = frame_of(theta, layers)
    soup, found = frame.soup.clone(), frame.to_theta(w)
    inside = torch.zeros(LAYOUT.K, dtype=torch.bool)
    inside[frame.positions] = True
    torch.testing.assert_close(found[:, inside], theta[:, inside], rtol=1e-6, atol=1e-6)
    assert torch.equal(found[:, ~inside], theta.double().mean(0).float()[~inside].expand(6, -1))
    torch.testing.assert_close(frame.to_w(found), w, rtol=1e-4, atol=1e-4)
    assert torch.equal(frame.to_theta(torch.zeros(1, w.shape[1]))[0], soup)  # exactly
    assert torch.equal(frame.soup, soup)


def test_saved_rows_and_frame_come_back_and_parts_are_as_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theta = random(6, LAYOUT.K)
    frame, w = frame_of(theta, (0, 1))
    LAYOUT.select_layers((0, 1))[0].save(tmp_path)
    write_tensors(tmp_path / "expected", {"w": w})
    monkeypatch.setattr("condpdiff.common.matrices.PART_BYTES", 2 * 4 * LAYOUT.K)
    files.save_rows(tmp_path / "a", Resident(theta), frame)
    files.save_frame(tmp_path / "a", frame)
    assert (tmp_path / "a" / files.W).read_bytes() == (tmp_path / "expected").read_bytes()
    assert torch.equal(whole(files.load_rows(tmp_path, ["a"])["a"]), w)
    for name in ("a", "a/3"):  # a member's frame is its family's
        found = files.load_frame(tmp_path, name)
        assert torch.equal(found.to_theta(w), frame.to_theta(w))
        assert torch.equal(found.positions, frame.positions)
    write_tensors(tmp_path / "a" / files.W, {"w": w[:, :-1]})
    found = message_of(files.load_rows, tmp_path, ["a"])
    assert "w.safetensors: found 39 weights, allowed: the layout's K = 40" in found


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_zoo_with_values_that_are_no_numbers_is_named(wrong: float, tmp_path: Path) -> None:
    theta = random(5, LAYOUT.K)
    theta[3, 7] = wrong
    write_tensors(tmp_path / "theta.safetensors", {"theta": theta})
    said = message_of(moments_of, {"cola": RowFile(tmp_path / "theta.safetensors", "theta")})
    assert said == f"{tmp_path}/theta.safetensors: cola holds values that are no numbers; lower its finetune.lr"
