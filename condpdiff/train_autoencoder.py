"""Train the autoencoder (Eq. 6-7)."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from condpdiff.autoencoder import Autoencoder, build, config_of
from condpdiff.params.ae import Autoencoder as Settings
from condpdiff.training import device, fit


def train(w: Tensor, settings: Settings) -> tuple[Autoencoder, dict[str, Any], pd.DataFrame]:
    """Train on w [N, K], the normalised checkpoints of all tasks.

    Returns:
        The model on the CPU, the config that `build` takes, and the curve (step, loss).
    """
    torch.manual_seed(settings.seed)
    config = config_of(settings, w.shape[1])
    model = build(config)
    if model.fit_closed_form(w):
        return model, config, pd.DataFrame({"step": [0], "loss": [reconstruction_error(model, w)]})

    model.to(device()).train()
    rows = w.to(device())

    def loss() -> Tensor:
        picked = torch.randint(len(rows), (settings.batch_size,), device=rows.device)
        return model.loss(rows[picked], settings.noise, settings.input_noise)

    curve = fit(model.parameters(), loss, steps=settings.steps, lr=settings.lr, what="train-ae")
    return model.cpu().eval(), config, curve


@torch.inference_mode()
def reconstruction_error(model: Autoencoder, w: Tensor) -> float:
    """Mean squared error of D(E(w)) over w [N, K], without noise."""
    errors = [(model.decode(model.encode(part)) - part).square().mean(1) for part in w.split(64)]
    return float(torch.cat(errors).mean())
