"""Fine-tune many LoRAs side by side, one for each member of a family: their zoo Theta [Q, N, K] in one file.

The base model sees the batches of S members at once (`placed.batched_loras`), which costs what one batch of that size
does, and no member waits for another's model to load.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from condpdiff.common.errors import UserError
from condpdiff.common.files import new_directory
from condpdiff.common.hardware import device, together
from condpdiff.common.stage import folder_of, once, part
from condpdiff.common.task import Finetune
from condpdiff.common.training import Gathered, fit
from condpdiff.zoo.checkpoints import Layout, Zoo, save_zoo
from condpdiff.zoo.collect import rise
from condpdiff.zoo.settings import Collect

# theta [S, K] of S members and a step's number -> their mean losses [S] on that step's batches
Losses = Callable[[Tensor, int], Tensor]
TOGETHER = 12  # members that are fine-tuned side by side


class Loras(nn.Module):
    """Theta [S, K] as what is trained, but where `trained` [K] is 0; all of a base model's weights stand still."""

    def __init__(self, theta: Tensor, trained: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta.clone())
        self.register_buffer("trained", trained)
        self.theta.register_hook(lambda gradient: gradient * self.trained)

    def forward(self, losses: Losses, step: int) -> Tensor:
        """The sum of the members' losses, so that none feels how many there are."""
        return losses(self.theta, step).sum()


class ManyFinetuning(ABC):
    """The fine-tuning of a family's members, as its domain knows it."""

    layout: Layout
    start: Tensor  # [K]: every member's LoRA before its first step
    trained: Tensor  # [K]: 0 where it stays as it is
    count: int  # Q: members
    config: Mapping[str, Any]  # what the zoo's file says of its states

    @abstractmethod
    def losses(self, members: list[int], batch_size: int, seed: int) -> Losses:
        """On each member's own training rows, `batch_size` a step; they depend on the seed, the member and the step."""


def finetune_many(
    losses: Losses,
    start: Tensor,
    trained: Tensor,
    finetune: Finetune,
    what: str,
    window: tuple[int, float] = (0, 0.0),
    after_step: Callable[[int, Tensor], None] = lambda done, theta: None,
    **resume: Any,
) -> Tensor:
    """LoRAs [S, K] after `finetune.steps` steps of Adam from `start` [S, K]: the rate rises, then falls along a cosine.

    Args:
        trained: [K], as `ManyFinetuning.trained`.
        window: steps after those, and the factor of their rate, to which it falls.
        after_step: called with the number of steps done, and theta [S, K].
        resume: `resume` and `state` of `fit`.
    """
    more, last = window
    if finetune.weight_decay and not trained.all():
        found = f"found {finetune.weight_decay} with collect.factors: A or B"
        raise UserError(f"{what}: finetune.weight_decay: {found}, allowed: 0, or both factors")

    def rate(step: int) -> float:
        if step >= finetune.steps:
            return last
        return rise(step, finetune) * (last + (1 - last) * (0.5 + 0.5 * math.cos(math.pi * step / finetune.steps)))

    loras = Loras(start, trained).to(device())
    optimizer = torch.optim.AdamW(loras.parameters(), lr=finetune.lr, weight_decay=finetune.weight_decay, fused=True)
    # Not clipped: a norm over all members would let each one feel its neighbours.
    fit(
        loras,
        lambda network, step: network(losses, step),
        optimizer,
        steps=finetune.steps + more,
        what=what,
        schedule=rate,
        after_step=lambda done: after_step(done, loras.theta),
        clip=None,
        **resume,
    )
    return loras.theta.detach().cpu()


def collect_many(family: ManyFinetuning, name: str, finetune: Finetune, collect: Collect, out: Path) -> None:
    """Fine-tune all members and write the zoo folder: theta [Q, N, K], layout.json and an empty head.
    One of several parts (`stage.PART`) leaves its groups for the run that writes the folder."""
    steps, n = collect.steps or finetune.steps, collect.max_checkpoints
    finetune = finetune.model_copy(update={"steps": steps})
    first, count = part()
    parts = []
    for members in _groups(family.count)[first::count]:
        what = f"{name} {members[0]}-{members[-1]}"
        parts.append(once(what, partial(_group, family, members, what, finetune, collect)))
    if count > 1:
        return
    with new_directory(out) as folder:
        placed = {**collect.model_dump(include={"rank", "alpha", "factors"}), "modules_to_save": []}
        config = {**placed, "task": name, **family.config}
        save_zoo(folder, Zoo(torch.cat([part["theta"] for part in parts]), family.layout, {}, config))
        curves = torch.cat([part["losses"] for part in parts], dim=1).mean(1)  # [steps + N every]
        frame = pd.DataFrame({"task": name, "step": range(1, len(curves) + 1), "loss": curves.tolist()})
        frame.to_csv(folder / "loss.csv", index=False)
    print(f"{name}: {family.count} members, {n} checkpoints each, loss {curves[0]:.4f} -> {curves[-n:].mean():.4f}")


def _groups(count: int) -> list[list[int]]:
    """Numbers of the members that are worked on side by side."""
    size = together(TOGETHER)
    return [list(range(q, min(q + size, count))) for q in range(0, count, size)]


def _group(
    family: ManyFinetuning, members: list[int], what: str, finetune: Finetune, collect: Collect
) -> dict[str, Tensor]:
    """theta [S, N, K] and losses [steps, S] of members that are fine-tuned side by side."""
    losses = family.losses(members, finetune.batch_size, collect.seed)
    kept = Gathered(theta=[], losses=[])  # [S, K] each: the states of the window; [S] each: of every step

    def recorded(theta: Tensor, step: int) -> Tensor:
        found = losses(theta, step)
        kept["losses"].append(found.detach().cpu())
        return found

    def keep(done: int, theta: Tensor) -> None:
        if done > finetune.steps and (done - finetune.steps) % collect.every == 0:
            kept["theta"].append(theta.detach().cpu().clone())

    window = collect.max_checkpoints * collect.every, (collect.lr or finetune.lr) / finetune.lr
    start, resume = family.start.repeat(len(members), 1), folder_of(what)
    finetune_many(recorded, start, family.trained, finetune, what, window, keep, resume=resume, state=[kept])
    return {"theta": torch.stack(kept["theta"], dim=1), "losses": torch.stack(kept["losses"])}
