"""data/normalized: what is written comes back, and a w of some layers becomes a whole theta."""

from pathlib import Path

import pytest
import torch

from condpdiff.common.errors import UserError
from condpdiff.common.files import write_tensors
from condpdiff.common.matrices import Resident, whole
from condpdiff.zoo.normalization import Moments, statistics_of
from condpdiff.zoo.normalized import Frame, W, load_frame, load_rows, save_frame, save_rows
from tests.stand_ins import make_layout


def frame_of(theta: torch.Tensor, layers: tuple[int, int] | None) -> tuple[Frame, torch.Tensor]:
    """What the stage normalize makes of one task's theta [N, K_all]: its frame, and w [N, K]."""
    chosen, positions = make_layout().select_layers(layers)
    statistics = statistics_of("task", {"a": Moments.of([theta[:, positions]])}, chosen)["a"]
    frame = Frame(statistics, theta.double().mean(0).float(), positions)
    return frame, frame.to_w(theta)


@pytest.fixture
def theta() -> torch.Tensor:
    return torch.randn(6, make_layout().K, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layers", [None, (1, 1), (0, 1)])
def test_chosen_layers_are_generated_and_the_rest_is_the_soup(
    theta: torch.Tensor, layers: tuple[int, int] | None
) -> None:
    frame, w = frame_of(theta, layers)
    soup, found = frame.soup.clone(), frame.to_theta(w)
    inside = torch.zeros(theta.shape[1], dtype=torch.bool)
    inside[frame.positions] = True
    if layers:
        chosen = {e.layer for e in make_layout().entries if inside[e.offset]}
        assert chosen == set(range(layers[0], layers[1] + 1))
    torch.testing.assert_close(found[:, inside], theta[:, inside], rtol=1e-6, atol=1e-6)
    assert torch.equal(found[:, ~inside], theta.double().mean(0).float()[~inside].expand(6, -1))
    torch.testing.assert_close(frame.to_w(found), w, rtol=1e-4, atol=1e-4)
    assert torch.equal(frame.to_theta(torch.zeros(1, w.shape[1]))[0], soup)  # exactly
    assert torch.equal(frame.soup, soup)


def test_saved_rows_and_frame_come_back_equal_and_parts_are_written_as_the_whole(
    theta: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, w = frame_of(theta, (0, 1))
    make_layout().select_layers((0, 1))[0].save(tmp_path)
    write_tensors(tmp_path / "expected", {"w": w})
    monkeypatch.setattr("condpdiff.common.matrices.PART_BYTES", 2 * 4 * theta.shape[1])
    save_rows(tmp_path / "a", Resident(theta), frame)
    save_frame(tmp_path / "a", frame)
    assert (tmp_path / "a" / W).read_bytes() == (tmp_path / "expected").read_bytes()
    assert torch.equal(whole(load_rows(tmp_path, ["a"])["a"]), w)
    for name in ("a", "a/3"):  # a member's frame is its family's
        found = load_frame(tmp_path, name)
        assert torch.equal(found.to_theta(w), frame.to_theta(w))
        assert torch.equal(found.positions, frame.positions)
        assert torch.equal(found.soup, frame.soup)


def test_w_and_layout_that_disagree_are_one_line(theta: torch.Tensor, tmp_path: Path) -> None:
    frame, w = frame_of(theta, None)
    make_layout().save(tmp_path)
    save_rows(tmp_path / "a", Resident(theta), frame)
    write_tensors(tmp_path / "a" / W, {"w": w[:, :-1]})
    with pytest.raises(UserError, match="w.safetensors: found 79 weights, allowed: the layout's K = 80"):
        load_rows(tmp_path, ["a"])
