"""A zoo folder: the last N checkpoints, and one line when its files disagree."""

from pathlib import Path
from typing import Any

import pytest
import torch

from condpdiff.common.errors import UserError
from condpdiff.common.files import write_tensors
from condpdiff.common.matrices import whole
from condpdiff.zoo.checkpoints import HEAD, THETA, load_zoo, open_zoo, open_zoos
from tests.stand_ins import make_layout

CONFIG = {"rank": 2, "alpha": 4.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    layout = make_layout()
    layout.save(tmp_path)
    write_tensors(tmp_path / THETA, {"theta": torch.randn(7, layout.K), "steps": torch.arange(7)}, CONFIG)
    write_tensors(tmp_path / HEAD, {"head": torch.ones(2)})
    return tmp_path


@pytest.mark.parametrize("last", [7, 3])
def test_last_n_checkpoints_are_read_with_layout_head_and_config(folder: Path, last: int) -> None:
    zoo = load_zoo(folder, last)
    assert torch.equal(zoo.theta, load_zoo(folder).theta[7 - last :])
    assert zoo.theta.shape == (last, make_layout().K)
    assert torch.equal(zoo.head["head"], torch.ones(2))
    assert zoo.config == CONFIG
    theta, layout = open_zoo(folder, last)  # in parts
    assert torch.equal(whole(theta), zoo.theta)
    assert layout == zoo.layout == make_layout()


@pytest.mark.parametrize("read", [load_zoo, open_zoo])
def test_files_that_disagree_and_too_few_checkpoints_are_one_line(folder: Path, read: Any) -> None:
    with pytest.raises(UserError, match=r"^params.yaml: normalize.n_checkpoints: found 8, allowed: at most 7 \(.*\)$"):
        read(folder, 8)
    make_layout(2).save(folder)
    expected = f"{THETA}: found {make_layout().K} weights, allowed: the layout's K = {make_layout(2).K}"
    with pytest.raises(UserError, match=expected):
        read(folder, 3)


def test_member_s_zoo_is_its_block_of_the_family_s(folder: Path) -> None:
    layout, head = make_layout(), load_zoo(folder).head
    theta = torch.randn(3, 7, layout.K)
    write_tensors(folder / THETA, {"theta": theta}, CONFIG)
    for last in (None, 7, 2):
        rows, found = open_zoo(folder / "2", last)
        assert found == layout and torch.equal(whole(rows), theta[2][-(last or 7) :])
        zoo = load_zoo(folder / "1", last)
        assert torch.equal(zoo.theta, theta[1][-(last or 7) :])
        assert zoo.config == CONFIG and torch.equal(zoo.head["head"], head["head"])
    with pytest.raises(UserError, match=r"theta: found F32 \[3, 7, 80\], allowed: F32 \[more than 3, rows, weights\]"):
        open_zoo(folder / "3")


def test_tasks_of_a_run_share_one_layout(folder: Path) -> None:
    for name, layers in (("a", 3), ("b", 3), ("c", 2)):
        (folder / name).mkdir()
        make_layout(layers).save(folder / name)
        write_tensors(folder / name / THETA, {"theta": torch.randn(7, make_layout(layers).K)}, CONFIG)
    zoos, layout = open_zoos(folder, ["b", "a"], 3)
    assert list(zoos) == ["b", "a"] and layout == make_layout()
    assert torch.equal(whole(zoos["a"]), whole(open_zoo(folder / "a", 3)[0]))
    with pytest.raises(UserError, match="c/layout.json: found another layout than .*/a's; same base and rank"):
        open_zoos(folder, ["a", "b", "c"])


@pytest.mark.parametrize("name", [THETA, HEAD, "layout.json"])
def test_absent_or_truncated_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-3])
    with pytest.raises(UserError, match=f"{name}: not "):
        load_zoo(folder, 3)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name}: no such file"):
        load_zoo(folder, 3)
