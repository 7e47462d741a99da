"""Training: the same batches whether the rows lie in memory or on disk, and the further loss on the updates."""

from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from condpdiff.autoencoder import train as train_autoencoder
from condpdiff.autoencoder.delta_w import update_loss
from condpdiff.autoencoder.settings import Autoencoder as Settings
from condpdiff.autoencoder.train import batches, train
from condpdiff.common.matrices import Joined, RowFile, row_writer
from condpdiff.common.settings import parse
from condpdiff.zoo.normalization import Moments
from tests.messages import message_of
from tests.stand_ins import make_layout

LAYOUT = make_layout()
COUNTS = (9, 14)


def make_settings(**changes: Any) -> Settings:
    settings = {"arch": "conv1d", "latent_channels": 2, "latent_length": 4, "patch": 16, "width": 4, "depth": 1}
    settings |= {"noise": 0.001, "input_noise": 0.001, "steps": 30, "batch_size": 8, "lr": 0.01}
    return parse(Settings, settings | changes, "params.yaml", "ae")


def random(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, LAYOUT.K, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def rows(tmp_path: Path) -> Joined:
    """Two tasks' rows on disk."""
    for count in COUNTS:
        with row_writer(tmp_path / str(count), "w", (count, LAYOUT.K)) as write:
            write(random(count, seed=count))
    return Joined([RowFile(tmp_path / str(count), "w") for count in COUNTS])


def test_batches_are_the_rows_of_their_numbers_on_disk_too(rows: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    everything, drawn = torch.cat([random(count, seed=count) for count in COUNTS]), []
    for limit in (2**20, 0):
        monkeypatch.setattr(train_autoencoder, "RESIDENT_BYTES", limit)
        torch.manual_seed(0)
        with closing(batches(rows, 5)) as stream:
            found = [(picked, w, torch.randn(1)) for picked, w in islice(stream, 40)]  # noise drawn as training does
        assert all(torch.equal(w, everything[picked]) for picked, w, _ in found)
        assert torch.cat([picked for picked, *_ in found]).unique().tolist() == list(range(sum(COUNTS)))
        drawn.append(found)
    for one, two in zip(*drawn, strict=True):
        assert torch.equal(one[0], two[0]) and torch.equal(one[2], two[2])


@pytest.mark.parametrize("changes", [{}, {"arch": "pdiff"}, {"patch_map": "shared", "start": "random"}])
def test_rows_on_disk_train_the_same(rows: Joined, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    one, _, curve = train(rows, make_settings(**changes), LAYOUT)
    monkeypatch.setattr(train_autoencoder, "RESIDENT_BYTES", 0)
    two, _, other = train(rows, make_settings(**changes), LAYOUT)
    assert curve.equals(other)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_file_that_breaks_while_training_is_one_line(
    rows: Joined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_autoencoder, "RESIDENT_BYTES", 0)
    (tmp_path / "14").write_bytes(b"")
    assert "it ends early" in message_of(train, rows, make_settings(start="random"))


def test_loss_on_the_updates_makes_their_error_smaller(rows: Joined) -> None:
    w, picked = rows.take(torch.arange(sum(COUNTS))), torch.arange(sum(COUNTS))
    statistics = [Moments.of([random(count, seed=40 + count)]).statistics() for count in COUNTS]
    updates, errors = update_loss(LAYOUT, iter(statistics), COUNTS, 1.0), []
    for further in (None, updates):
        settings = make_settings(steps=60, noise=0.0, input_noise=0.0)
        model, _, _ = train(rows, settings, LAYOUT, further)
        with torch.inference_mode():
            errors.append(float(updates(model.decode(model.encode(w)), w, picked)))
    assert errors[1] < 0.9 * errors[0]
    assert update_loss(LAYOUT, iter(lambda: pytest.fail("read"), None), COUNTS, 0.0) is None  # reads no statistics
