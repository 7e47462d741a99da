"""A loss on what LoRA adds to the model, Delta W = B A, which is the same for (B R, R^-1 A) with any invertible R."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from condpdiff.common.errors import UserError
from condpdiff.zoo.layout import Entry, Layout
from condpdiff.zoo.normalization import Statistics

SMALLEST = 1e-12  # squared norm of an update below which its error is no longer relative


class UpdateLoss(nn.Module):
    """Weighted mean over rows and LoRA pairs of |B^ A^ - B A|^2 / |B A|^2 (Frobenius), of decoded and true weights."""

    mean: Tensor
    std: Tensor
    task: Tensor

    def __init__(self, layout: Layout, statistics: Sequence[Statistics], counts: Sequence[int], weight: float) -> None:
        """Statistics and rows of each task, in the order in which the tasks' rows follow each other.

        Raises:
            UserError: a LoRA tensor of the layout has no partner.
        """
        super().__init__()
        self.pairs, self.weight = pairs_of(layout), weight
        self.register_buffer("mean", torch.stack([s.mean for s in statistics]))  # [tasks, K]
        self.register_buffer("std", torch.stack([s.std for s in statistics]))  # [tasks, K]
        self.register_buffer("task", torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)))  # [N]

    def forward(self, decoded: Tensor, w: Tensor, picked: Tensor) -> Tensor:
        """w_hat [B, K], w [B, K], and which rows of all tasks' they are [B] int64 -> the loss."""
        task = self.task[picked.to(self.task.device)]
        with torch.autocast(w.device.type, enabled=False):
            errors = [self._error(decoded - w, w, task, a, b) for a, b in self.pairs]
        return self.weight * torch.stack(errors).mean()

    def _error(self, off: Tensor, w: Tensor, task: Tensor, a: Entry, b: Entry) -> Tensor:
        """Relative error [B] of one pair, through products of 2r x 2r at most.

        B^ A^ - B A = (B^ - B) A^ + B (A^ - A) = P Q, whose squared norm is the trace of (P' P) (Q Q'). Taken as a
        difference of squared norms instead, a small error would drown in rounding.
        """
        up, down = self._factor(w, task, b, True), self._factor(w, task, a, True)  # [n, out, r], [n, r, in]
        up_off, down_off = self._factor(off, task, b, False), self._factor(off, task, a, False)
        p = torch.cat([up_off, up], 2)  # [n, out, 2r]
        q = torch.cat([down + down_off, down_off], 1)  # [n, 2r, in]
        return _squared_norm(p, q) / _squared_norm(up, down).clamp_min(SMALLEST)

    def _factor(self, w: Tensor, task: Tensor, entry: Entry, shifted: bool) -> Tensor:
        """One LoRA tensor [n, *shape] of normalised weights, or of a difference of such, which has no mean."""
        part = w[:, entry.slice] * self.std[:, entry.slice][task]
        return (part + self.mean[:, entry.slice][task] if shifted else part).unflatten(1, entry.shape)


def update_loss(
    layout: Layout, statistics: Iterable[Statistics], counts: Sequence[int], weight: float
) -> UpdateLoss | None:
    """The further loss of `ae.delta_w`; none, and no statistics are read, where that is 0."""
    return UpdateLoss(layout, list(statistics), counts, weight) if weight else None


def pairs_of(layout: Layout) -> list[tuple[Entry, Entry]]:
    """lora_A [r, in] and lora_B [out, r] of every module that has LoRA.

    Raises:
        UserError: one of the two is missing.
    """
    by_key = {entry.key: entry for entry in layout.entries}
    keys = {key.replace(".lora_B.", ".lora_A."): key for key in by_key}
    for a in keys:
        for key in (a, a.replace(".lora_A.", ".lora_B.")):
            if key not in by_key:
                raise UserError(f"layout: found no {key}, allowed: lora_A and lora_B of a module together")
    return [(by_key[a], by_key[a.replace(".lora_A.", ".lora_B.")]) for a in keys]


def _squared_norm(left: Tensor, right: Tensor) -> Tensor:
    """Squared Frobenius norm [n] of left @ right, [n, out, r] and [n, r, in], without forming the product."""
    return ((left.mT @ left) * (right @ right.mT)).sum((1, 2))
