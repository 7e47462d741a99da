"""Train the autoencoder (Eq. 6-7)."""

import ctypes
import sys
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from condpdiff.autoencoder.models import Autoencoder, build, config_of
from condpdiff.autoencoder.settings import Autoencoder as Settings
from condpdiff.common.hardware import device, share
from condpdiff.common.matrices import FLOAT, Rows, as_rows, whole
from condpdiff.common.stage import folder_of
from condpdiff.common.training import adamw, fit

RESIDENT_BYTES = 512 * 2**20  # rows up to this size lie on the device while training
LARGE_BLOCK = 16 * 2**20
REFERENCE_K = 18_432  # K at which `ae.lr` is the rate itself


def train(w: Rows | Tensor, settings: Settings) -> tuple[Autoencoder, dict[str, Any], pd.DataFrame]:
    """Train on w [N, K], all tasks' normalised checkpoints: the model on the CPU, its config, and the curve."""
    torch.manual_seed(settings.seed)
    rows = as_rows(w)
    config = config_of(settings, rows.shape[1])
    model = build(config)
    if (settings.start == "pca" or settings.arch == "pca") and model.fit_closed_form(rows):
        return model, config, pd.DataFrame({"step": [0], "loss": [reconstruction_error(model, rows)]})

    model.to(device()).train()
    with ThreadPoolExecutor(1) as reader:
        drawn = Batches(rows, share(settings.batch_size), reader)

        def loss(network: nn.Module, _: int) -> Tensor:
            return network(drawn.next(), settings.noise, settings.input_noise)

        optimizer = adamw(model.parameters(), rate(settings, rows.shape[1]))
        what: Any = {"steps": settings.steps, "what": "train-ae", "rate": "ae.lr"}
        curve = fit(model, loss, optimizer, **what, resume=folder_of("train-ae"), state=[drawn])
    return model.cpu().eval(), config, curve


def rate(settings: Settings, K: int) -> float:  # noqa: N803  the paper's letter
    """The learning rate at this K.

    The patched bottleneck sums over K / patch positions: Adam's equal steps of all its weights add up, and at a rate
    that does not fall with K the first of them undo the closed-form start.
    """
    return settings.lr * min(1.0, REFERENCE_K / K) ** 0.5 if settings.arch == "conv1d" else settings.lr


class Batches:
    """Random rows w [size, K] without end, on the device.

    Many are read while the batch before is worked on. They are always drawn one batch ahead, so that noise is the same.
    """

    def __init__(self, rows: Rows, size: int, reader: Executor) -> None:
        self.rows, self.size, self.reader, self.device = rows, size, reader, device()
        count, width = rows.shape
        self.resident = whole(rows).to(self.device) if FLOAT * count * width <= RESIDENT_BYTES else None
        if self.resident is None and sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
            # Have glibc give freed blocks of a batch's size back, at a tenth of a step's time: left alone it keeps
            # those below 32 MB in its heap, where their fragments grow to half a gigabyte.
            libc.mallopt(-3, LARGE_BLOCK)  # M_MMAP_THRESHOLD
        self.load_state_dict({"ahead": torch.randint(count, (size,))})

    def state_dict(self) -> dict[str, Tensor]:
        return {"ahead": self.ahead}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.ahead = state["ahead"]  # [size]: the rows of the next batch
        self.read = self._start()

    def next(self) -> Tensor:
        """One batch [size, K]; it is held by nothing here, so that it goes before the optimiser's turn."""
        read = self.read
        self.ahead = torch.randint(self.rows.shape[0], (self.size,))
        self.read = self._start()
        return read().to(self.device, non_blocking=True)

    def _start(self) -> Callable[[], Tensor]:
        picked, resident = self.ahead, self.resident
        if resident is not None:
            return lambda: resident[_pinned(self.device, picked).to(self.device, non_blocking=True)]
        return self.reader.submit(lambda: _pinned(self.device, self.rows.take(picked))).result


def _pinned(where: str, tensor: Tensor) -> Tensor:
    """From page-locked memory a copy to a GPU waits for nothing."""
    return tensor if where == "cpu" else tensor.pin_memory()


@torch.inference_mode()
def reconstruction_error(model: Autoencoder, w: Rows | Tensor) -> float:
    """Mean squared error of D(E(w)) over w [N, K], without noise."""
    batches = (batch for part in as_rows(w).parts() for batch in part.split(64))
    errors = [(model.decode(model.encode(batch)) - batch).square().mean(1) for batch in batches]
    return float(torch.cat(errors).mean())
