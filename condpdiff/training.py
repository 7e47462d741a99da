"""The training loop of the autoencoder and of the denoiser."""

import math
from collections.abc import Callable, Iterable

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import trange

LOG_EVERY = 20


def device() -> str:
    """`cuda` where there is one; not a parameter of a run, so that all machines share one cache key."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fit(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[], Tensor],
    *,
    steps: int,
    lr: float,
    what: str,
    after_step: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Minimise `loss()` with AdamW; the rate rises over 5 % of the steps and falls along a cosine to 0.

    Returns:
        The curve: columns step, loss (mean over the last `LOG_EVERY` steps; read from the device only then).
    """
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * s / steps))
    )
    curve, since = [], []
    bar = trange(1, steps + 1, desc=what, unit="step", mininterval=1)
    for step in bar:
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
        optimizer.step()
        schedule.step()
        after_step()
        since.append(value.detach())
        if step % LOG_EVERY == 0 or step == steps:
            mean = float(torch.stack(since).mean())
            bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
            curve.append((step, mean))
            since = []
    return pd.DataFrame(curve, columns=["step", "loss"])
