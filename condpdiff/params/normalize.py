"""Section `normalize`: which checkpoints and layers are generated, and their z-score (Tables 3, 4a, 4c)."""

from typing import Literal

from pydantic import PositiveInt, model_validator

from condpdiff.params.section import Section

SHARED = ("batch", "none")
"""Methods by which all tasks have the same statistics."""


class Normalize(Section):
    method: Literal["task", "task_tensor", "task_scalar", "batch", "none"]
    """Which z-score (DESIGN of the paper's Table 4a); see `condpdiff.normalization`."""
    n_checkpoints: PositiveInt
    """N: the last N of the collected checkpoints (Table 3)."""
    layers: Literal["all"] | tuple[int, int] = "all"
    """First and last layer generated, both included; the rest of a vector is the task's soup (Table 4c)."""

    @model_validator(mode="after")
    def _ordered(self) -> "Normalize":
        if self.layers != "all" and not 0 <= self.layers[0] <= self.layers[1]:
            raise ValueError(f"layers: {list(self.layers)}, allowed: [first, last] with 0 <= first <= last")
        return self
