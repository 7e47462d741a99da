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


@pytest.mark.parametrize("name", [THETA, HEAD, "layout.json"])
def test_absent_or_truncated_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-3])
    with pytest.raises(UserError, match=f"{name}: not "):
        load_zoo(folder, 3)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name}: no such file"):
        load_zoo(folder, 3)
