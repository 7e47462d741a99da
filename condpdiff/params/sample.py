"""Section `sample`: from noise to LoRA weights."""

from typing import Literal

from pydantic import Field, PositiveInt

from condpdiff.params.section import Section


class Sample(Section):
    count: PositiveInt
    """S: samples a task."""
    scheduler: Literal["ddpm", "ddim", "dpm++"]
    steps: int = Field(gt=0, le=1000)
    """Denoising steps, of T = 1000."""
    guidance: float = Field(ge=0)
    """Classifier-free guidance scale; 1 is the plain conditional model."""
    trajectories: int = Field(5, ge=0)
    """Samples a task whose denoising is kept for the figures."""
    trajectory_points: PositiveInt = 10
    """Points kept of each such trajectory."""
    seed: int = Field(0, ge=0)
