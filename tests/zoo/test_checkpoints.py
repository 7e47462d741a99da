"""A zoo folder: the last N checkpoints, and one line when its files disagree."""

from pathlib import Path
from typing import Any

import pytest
import torch

from condpdiff.common.errors import UserError
from condpdiff.common.files import write_tensors
from condpdiff.common.matrices import whole
from condpdiff.zoo.checkpoints import HEAD, THETA, load_zoo, open_zoo
from tests.stand_ins import make_layout

CONFIG = {"rank": 2, "alpha": 4.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    layout = make_layout()
    layout.save(tmp_path)
    write_tensors(tmp_path / THETA, {"theta": torch.randn(7, layout.K), "steps": torch.arange(7)}, CONFIG)
    write_tensors(tmp_path / HEAD, {"head": torch.ones(2)})
    return tmp_path


def test_last_n_checkpoints_are_read_with_layout_head_and_config(folder: Path) -> None:
    whole, part = load_zoo(folder, 7), load_zoo(folder, 3)
    assert whole.theta.shape == (7, make_layout().K)
    assert torch.equal(part.theta, whole.theta[4:])
    assert part.layout == make_layout()
    assert torch.equal(part.head["head"], torch.ones(2))
    assert part.config == CONFIG


def test_last_n_checkpoints_are_read_in_parts(folder: Path) -> None:
    for last in (7, 3):
        theta, layout = open_zoo(folder, last)
        assert torch.equal(whole(theta), load_zoo(folder, last).theta)
        assert layout == make_layout()


READERS = pytest.mark.parametrize("read", [load_zoo, open_zoo])


@READERS
def test_more_checkpoints_than_there_are_is_one_line(folder: Path, read: Any) -> None:
    with pytest.raises(UserError, match=r"^params.yaml: normalize.n_checkpoints: found 8, allowed: at most 7 \(.*\)$"):
        read(folder, 8)


@READERS
def test_layout_and_weights_that_disagree_are_one_line(folder: Path, read: Any) -> None:
    make_layout(2).save(folder)
    with pytest.raises(UserError) as error:
        read(folder, 3)
    assert f"found {make_layout().K} weights, allowed: the layout's K = {make_layout(2).K}" in str(error.value)
    assert THETA in str(error.value)


@pytest.mark.parametrize("name", [THETA, HEAD])
def test_truncated_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-3])
    with pytest.raises(UserError, match=f"{name}: not a readable safetensors file"):
        load_zoo(folder, 3)


@pytest.mark.parametrize("name", [THETA, HEAD, "layout.json"])
def test_absent_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name}: no such file"):
        load_zoo(folder, 3)
