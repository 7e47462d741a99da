"""Section `sample`: from noise to LoRA weights."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from condpdiff.common.settings import Section

Level = Annotated[float, Field(ge=0, le=1)]
DOSES = (0.0, 0.25, 0.5, 0.75, 1.0)  # performances asked for by the dose-response curve


class Sample(Section):
    count: PositiveInt  # S: samples a task
    scheduler: Literal["ddpm", "ddim", "dpm++"]
    steps: int = Field(gt=0, le=1000)  # of denoising, of T = 1000
    guidance: NonNegativeFloat  # classifier-free guidance scale; 1 is the plain conditional model
    performance: Level | tuple[Level, Level] | None
    """p asked for, 0 the zoo's worst and 1 its best: one for all samples, or a range that each draws from; null asks
    for none, as it must with `ldm.performance: none`."""
    performance_guidance: NonNegativeFloat = 1.0  # from asking for none (0) to asking for p (1) and beyond
    doses: NonNegativeInt = 0  # samples at each of `DOSES` for the dose-response curve
    trajectories: NonNegativeInt = 5  # samples a task whose denoising is kept for the figures
    trajectory_points: PositiveInt = 10  # kept of each of these
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _ordered(self) -> "Sample":
        if isinstance(self.performance, tuple) and self.performance[0] > self.performance[1]:
            found = list(self.performance)
            raise ValueError(f"performance: {found}, allowed: [lowest, highest] with lowest <= highest")
        return self
