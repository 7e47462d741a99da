"""Section `collect`: LoRA placement and which states of fine-tuning are kept."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from condpdiff.params.section import Section


class Collect(Section):
    rank: PositiveInt
    """r of the LoRA matrices A [r, in] and B [out, r]."""
    alpha: PositiveFloat
    """The update is (alpha / r) B A."""
    target_modules: Literal["auto"] | list[str] = "auto"
    """Suffixes of the modules that get a LoRA; `auto`: all attention projections of the model type."""
    steps: PositiveInt | None = None
    """Steps before the window for every task; null: each task file's own `finetune.steps`."""
    max_checkpoints: PositiveInt
    """N_max: the last states kept, one every `every` steps."""
    every: PositiveInt = 1
    """Steps between two kept states."""
    lr: PositiveFloat | None = None
    """Constant learning rate inside the window; null: the task's own `finetune.lr`."""
    save_every: PositiveInt = 100
    """Steps between two resume points of an interrupted fine-tuning."""
    validate_every: PositiveInt = 50
    """Steps between two points of the validation curve."""
    seed: int = Field(0, ge=0)
