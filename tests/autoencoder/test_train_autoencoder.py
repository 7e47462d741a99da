"""Training: the same batches whether the rows lie in memory or on disk."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from condpdiff.autoencoder import train as train_autoencoder
from condpdiff.autoencoder.settings import Autoencoder as Settings
from condpdiff.autoencoder.train import Batches, train
from condpdiff.common.matrices import Joined, RowFile, row_writer
from condpdiff.common.settings import parse
from tests.messages import message_of

WIDTH = 70
COUNTS = (9, 14)


def make_settings(**changes: Any) -> Settings:
    settings = {"arch": "conv1d", "latent_channels": 2, "latent_length": 4, "patch": 16, "width": 4, "depth": 1}
    settings |= {"noise": 0.001, "input_noise": 0.001, "steps": 30, "batch_size": 8, "lr": 0.01}
    return parse(Settings, settings | changes, "params.yaml", "ae")


def random(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def rows(tmp_path: Path) -> Joined:
    """Two tasks' rows on disk."""
    for count in COUNTS:
        with row_writer(tmp_path / str(count), "w", (count, WIDTH)) as write:
            write(random(count, seed=count))
    return Joined([RowFile(tmp_path / str(count), "w") for count in COUNTS])


def test_batches_are_random_rows_and_the_same_ones_on_disk(rows: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    everything, drawn = torch.cat([random(count, seed=count) for count in COUNTS]), []
    for limit in (2**20, 0):
        monkeypatch.setattr(train_autoencoder, "RESIDENT_BYTES", limit)
        torch.manual_seed(0)
        with ThreadPoolExecutor(1) as reader:
            stream = Batches(rows, 5, reader)
            found = [(stream.next(), torch.randn(1)) for _ in range(40)]  # noise drawn as training does
        seen = [(w[:, None] == everything).all(2).nonzero() for w, _ in found]  # [5, 2]: which row is which
        assert all(picked[:, 0].tolist() == list(range(5)) for picked in seen)
        assert torch.cat(seen)[:, 1].unique().tolist() == list(range(sum(COUNTS)))
        drawn.append(found)
    for one, two in zip(*drawn, strict=True):
        assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])


@pytest.mark.parametrize("changes", [{}, {"arch": "pdiff"}, {"start": "random"}])
def test_rows_on_disk_train_the_same(rows: Joined, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    one, _, curve = train(rows, make_settings(**changes))
    monkeypatch.setattr(train_autoencoder, "RESIDENT_BYTES", 0)
    two, _, other = train(rows, make_settings(**changes))
    assert curve.equals(other)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_file_that_breaks_while_training_is_one_line(
    rows: Joined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_autoencoder, "RESIDENT_BYTES", 0)
    (tmp_path / "14").write_bytes(b"")
    assert "it ends early" in message_of(train, rows, make_settings(start="random"))
