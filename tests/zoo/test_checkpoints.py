"""A zoo folder: the last N checkpoints, and one line when its files disagree."""

from pathlib import Path
from typing import Any

import pytest
import torch

from condpdiff.common.files import write_tensors
from condpdiff.common.matrices import whole
from condpdiff.zoo.checkpoints import HEAD, THETA, load_zoo, open_zoo, open_zoos
from condpdiff.zoo.layout import Layout
from tests.messages import message_of
from tests.stand_ins import make_layout
from tests.tensors import random

CONFIG = {"rank": 2, "alpha": 4.0}
LAYOUT = make_layout()


def write_zoo(folder: Path, layout: Layout = LAYOUT, *family: int) -> Path:
    folder.mkdir(exist_ok=True)
    layout.save(folder)
    write_tensors(folder / THETA, {"theta": random(*family, 7, layout.K)}, CONFIG)
    write_tensors(folder / HEAD, {"head": torch.ones(2)})
    return folder


@pytest.mark.parametrize("last", [7, 3])
def test_last_n_checkpoints_are_read_with_layout_head_and_config(last: int, tmp_path: Path) -> None:
    zoo = load_zoo(write_zoo(tmp_path), last)
    assert torch.equal(zoo.theta, random(7, LAYOUT.K)[7 - last :])
    assert torch.equal(zoo.head["head"], torch.ones(2)) and zoo.config == CONFIG
    theta, layout = open_zoo(tmp_path, last)  # in parts
    assert torch.equal(whole(theta), zoo.theta)
    assert layout == zoo.layout == LAYOUT


@pytest.mark.parametrize("read", [load_zoo, open_zoo])
def test_files_that_disagree_and_too_few_checkpoints_are_one_line(read: Any, tmp_path: Path) -> None:
    says = message_of(read, write_zoo(tmp_path), 8)
    assert says == f"params.yaml: normalize.n_checkpoints: found 8, allowed: at most 7 ({tmp_path})"
    make_layout(2).save(tmp_path)
    expected = f"{THETA}: found {LAYOUT.K} weights, allowed: the layout's K = {make_layout(2).K}"
    assert message_of(read, tmp_path, 3).endswith(expected)


@pytest.mark.parametrize("last", [None, 7, 2])
def test_member_s_zoo_is_its_block_of_the_family_s(last: int | None, tmp_path: Path) -> None:
    theta = random(3, 7, LAYOUT.K)[:, -(last or 7) :]
    rows, found = open_zoo(write_zoo(tmp_path, LAYOUT, 3) / "2", last)
    assert found == LAYOUT and torch.equal(whole(rows), theta[2])
    zoo = load_zoo(tmp_path / "1", last)
    assert torch.equal(zoo.theta, theta[1])
    assert zoo.config == CONFIG and torch.equal(zoo.head["head"], torch.ones(2))
    allowed = "found F32 [3, 7, 80], allowed: F32 [more than 3, rows, weights]"
    assert message_of(open_zoo, tmp_path / "3").endswith(allowed)


def test_tasks_of_a_run_share_one_layout(tmp_path: Path) -> None:
    for name, layers in (("a", 3), ("b", 3), ("c", 2)):
        write_zoo(tmp_path / name, make_layout(layers))
    zoos, layout = open_zoos(tmp_path, ["b", "a"], 3)
    assert list(zoos) == ["b", "a"] and layout == LAYOUT
    assert torch.equal(whole(zoos["a"]), whole(open_zoo(tmp_path / "a", 3)[0]))
    says = message_of(open_zoos, tmp_path, ["a", "b", "c"])
    assert says.endswith(f"c/layout.json: found another layout than {tmp_path / 'a'}'s; same base and rank?")
