"""The tasks of the task loss: members of text families. None can be drawn afresh: each needs labelled rows."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condpdiff.common.hardware import device
from condpdiff.common.task import grouped, number
from condpdiff.diffusion.conditions import FILE, load_conditions
from condpdiff.diffusion.settings import Condition, Ldm
from condpdiff.text.families.losses import Family
from condpdiff.text.task import load_task
from condpdiff.zoo.many import Losses
from condpdiff.zoo.settings import Collect


class Draws:
    """As `task_loss.Draw`: a step's S members, all of one family, and the losses of S LoRAs on their training rows."""

    def __init__(self, data: Path, condition: Condition, collect: Collect, settings: Ldm) -> None:
        self.settings, self.seed = settings.task_loss, settings.seed
        self.names = {name: members for name, members in grouped("train").items() if members}
        self.families = {k: Family(load_task(k), collect, data / "tasks" / k, data / "base") for k in self.names}
        names = [name for members in self.names.values() for name in members]
        self.y = load_conditions(data / "conditions" / FILE, names)
        self.trained = next(iter(self.families.values())).trained
        self.losses: dict[str, Losses] = {}
        """Of each member that was drawn, whose texts are then through the layers that no LoRA changes."""
        self.random = np.random.default_rng([settings.seed, 1])

    def __call__(self, step: int) -> tuple[Tensor, Any]:
        """As `task_loss.Draw`."""
        family = list(self.names)[step % len(self.names)]
        members, random = self.names[family], self.random
        chosen = [members[i] for i in random.permutation(len(members))[: self.settings.tasks]]
        y = torch.stack([self.y[name][random.integers(len(self.y[name]))] for name in chosen]).to(device())
        for name in set(chosen) - set(self.losses):
            self.losses[name] = self.families[family].losses([number(name)], self.settings.rows, self.seed)
        return y, lambda theta: torch.cat([self.losses[k](t[None], step) for k, t in zip(chosen, theta, strict=True)])

    def state_dict(self) -> dict[str, Any]:
        """As `task_loss.Draw`."""
        return {"random": self.random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `task_loss.Draw`."""
        self.random.bit_generator.state = state["random"]
