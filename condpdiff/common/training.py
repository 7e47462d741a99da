"""The training loop of the autoencoder and of the denoiser: one process or several, CPU or GPU, through Accelerate."""

import math
from collections.abc import Callable, Iterable

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import trange

from condpdiff.common.hardware import compiled, device, rank

LOG_EVERY = 20


def adamw(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """AdamW as all of the project's networks are trained."""
    return torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=0.0)


def fit(
    model: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    *,
    steps: int,
    lr: float,
    what: str,
    after_step: Callable[[], None] = lambda: None,
    optimizer: Callable[[nn.Module, float], torch.optim.Optimizer] = lambda model, lr: adamw(model.parameters(), lr),
) -> pd.DataFrame:
    """Minimise `loss(network)`; the rate rises over 5 % of the steps and falls along a cosine to 0.

    On a GPU the network runs under bf16 autocast, and nothing waits for the device between two logged losses.

    Args:
        model: trained in place, on the device that it already lies on.
        loss: called with what stands for the model (compiled, or wrapped to average gradients over processes);
            it draws its batch from torch's global generator, which each process seeds apart.
        lr: highest rate of AdamW.
        optimizer: made of the model and `lr`; all its rates rise and fall alike.

    Returns:
        The curve: columns step, loss (mean over the last `LOG_EVERY` steps; read from the device only then).
    """
    from accelerate import Accelerator  # a second's import

    gpu = device() != "cpu"
    accelerator = Accelerator(cpu=not gpu, mixed_precision="bf16" if gpu else "no", step_scheduler_with_optimizer=False)
    if rank() > 0:
        torch.manual_seed(torch.initial_seed() + 7919 * rank())  # other rows and other noise in each process
    minimizer = optimizer(model, lr)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        minimizer, lambda s: min((s + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * s / steps))
    )
    network, minimizer = accelerator.prepare(compiled(model), minimizer)
    curve, since = [], []
    bar = trange(1, steps + 1, desc=what, unit="step", mininterval=1, disable=rank() > 0)
    for step in bar:
        minimizer.zero_grad(set_to_none=True)  # before the forward pass, whose activations are the peak of memory
        with accelerator.autocast():
            value = loss(network)
        accelerator.backward(value)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        minimizer.step()
        schedule.step()
        after_step()
        since.append(value.detach())
        if step % LOG_EVERY == 0 or step == steps:
            mean = float(torch.stack(since).mean())
            bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
            curve.append((step, mean))
            since = []
    accelerator.free_memory()
    return pd.DataFrame(curve, columns=["step", "loss"])
