"""Section `probe`: what the condition does, with the conditions swapped, and with tasks left out of training."""

from pydantic import Field, NonNegativeInt, PositiveInt

from condpdiff.params.condition import UNDESCRIBED
from condpdiff.params.section import Section

NONSENSE, DROPPED = "nonsense", "dropped"
"""Conditions of no task: a description that means nothing, and the null condition of `ldm.condition_dropout`."""


class Probe(Section):
    samples: NonNegativeInt
    """LoRAs a cell; 0 probes nothing."""
    unseen: NonNegativeInt
    """How many tasks are left out in turn, the first ones of `tasks`; all, if there are fewer."""
    ldm_steps: PositiveInt
    """Training steps of the denoiser of the other tasks, in place of `ldm.steps`."""
    seed: int = Field(0, ge=0)

    def left_out(self, tasks: list[str], kind: str) -> list[str]:
        """The tasks left out in turn: none where `condition.kind` says nothing of a task never seen, or no other task
        is left to train on."""
        return tasks[: self.unseen] if kind not in UNDESCRIBED and len(tasks) > 1 else []
