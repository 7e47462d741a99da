"""Section `sample`: from noise to LoRA weights."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from condpdiff.common.settings import Section

Level = Annotated[float, Field(ge=0, le=1)]
DOSES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Performances asked for by the dose-response curve."""


class Sample(Section):
    count: PositiveInt
    """S: samples a task."""
    scheduler: Literal["ddpm", "ddim", "dpm++"]
    steps: int = Field(gt=0, le=1000)
    """Denoising steps, of T = 1000."""
    guidance: float = Field(ge=0)
    """Classifier-free guidance scale; 1 is the plain conditional model."""
    performance: Level | tuple[Level, Level] | None
    """p asked for, 0 the zoo's worst and 1 its best: one for all samples, or a range that each draws from; null asks
    for none, as it must with `ldm.performance: none`."""
    performance_guidance: float = Field(1.0, ge=0)
    """From asking for none (0) to asking for p (1) and beyond."""
    doses: int = Field(0, ge=0)
    """Samples at each of `DOSES` for the dose-response curve."""
    trajectories: int = Field(5, ge=0)
    """Samples a task whose denoising is kept for the figures."""
    trajectory_points: PositiveInt = 10
    """Points kept of each such trajectory."""
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> "Sample":
        if isinstance(self.performance, tuple) and self.performance[0] > self.performance[1]:
            raise ValueError(
                f"performance: {list(self.performance)}, allowed: [lowest, highest] with lowest <= highest"
            )
        return self
