"""Section `ldm`: the latent diffusion model eps_theta (Eq. 8)."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from condpdiff.params.section import Section


class Ldm(Section):
    channels: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Channels at lengths L, L/2, L/4 of the 1-D U-Net."""
    blocks: PositiveInt = 1
    """Residual blocks at each length."""
    prediction: Literal["epsilon", "v_prediction", "sample"]
    """What the network predicts; the paper's Eq. 8 is epsilon."""
    condition_dropout: float = Field(ge=0, lt=1)
    """Share of training rows whose condition is replaced by the null condition."""
    ema: float = Field(ge=0, lt=1)
    """Largest decay of the exponential moving average of the weights."""
    steps: PositiveInt
    batch_size: PositiveInt
    lr: PositiveFloat
    seed: int = Field(0, ge=0)
