"""Sections `collect`, `normalize` and `performance` of params.yaml."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from condpdiff.common.settings import Section


class Collect(Section):
    """LoRA placement, and which states of fine-tuning are kept."""

    rank: PositiveInt  # r of the LoRA matrices A [r, in] and B [out, r]
    alpha: PositiveFloat  # the update is (alpha / r) B A
    # Which matrices are trained and generated; the others stay as they were drawn, and those that train start at 0.
    factors: Literal["both", "A", "B"] = "both"
    # Suffixes of the modules that get a LoRA; `auto`: all attention projections of the model type.
    target_modules: Literal["auto"] | list[str] = "auto"
    steps: PositiveInt | None = None  # before the window, for every task; null: each task's own `finetune.steps`
    max_checkpoints: PositiveInt  # N_max: the last states kept, one every `every` steps
    every: PositiveInt = 1  # steps between two kept states
    lr: PositiveFloat | None = None  # learning rate inside the window; null: the task's own `finetune.lr`
    validate_every: PositiveInt = 50  # steps between two points of the validation curve
    seed: int = Field(0, ge=0)


SHARED = ("shared", "batch", "none")  # methods by which all tasks have the same statistics


class Normalize(Section):
    """Which checkpoints and layers are generated (Tables 3 and 4c), and their z-score."""

    method: Literal["shared", "task", "task_tensor", "task_scalar", "batch", "none"]  # Table 4a; zoo/normalized.py
    n_checkpoints: PositiveInt  # N: the last N of the collected checkpoints (Table 3)
    train_members: PositiveInt | None = None  # of every family, at most; null: all that its file says
    # First and last layer generated, both included; the rest of a vector is the task's soup (Table 4c).
    layers: Literal["all"] | tuple[int, int] = "all"

    @model_validator(mode="after")
    def _ordered(self) -> "Normalize":
        if self.layers != "all" and not 0 <= self.layers[0] <= self.layers[1]:
            raise ValueError(f"layers: {list(self.layers)}, allowed: [first, last] with 0 <= first <= last")
        return self


class Performance(Section):
    """The loss by which a checkpoint is told to be good or bad."""

    rows: PositiveInt  # held-out training rows that a checkpoint's loss is the mean over
    # Every so many-th checkpoint is rated, and the last one; between rated ones the loss is interpolated linearly.
    every: PositiveInt = 1
