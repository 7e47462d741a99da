"""Section `ldm`: the latent diffusion model eps_theta (Eq. 8).

Section `condition`: what tells the denoiser which task to generate for (Table 4b).
"""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from condpdiff.common.settings import Section


class Ldm(Section):
    channels: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Channels at lengths L, L/2, L/4 of the 1-D U-Net."""
    blocks: PositiveInt = 1
    """Residual blocks at each length."""
    prediction: Literal["epsilon", "v_prediction", "sample"]
    """What the network predicts; the paper's Eq. 8 is epsilon."""
    schedule: Literal["linear", "linear_zero_snr"] = "linear"
    """Noise schedule; `linear_zero_snr` rescales the paper's so that t = T - 1 is pure noise (arXiv 2305.08891)."""
    min_snr: PositiveFloat | None = None
    """gamma of min-SNR loss weighting (arXiv 2303.09556); null: all timesteps weigh the same in `prediction`."""
    conditioning: Literal["film", "cross_attention"] = "film"
    """How time and conditions enter the network; `cross_attention` comes beside FiLM."""
    condition_dropout: float = Field(ge=0, lt=1)
    """Share of training rows whose condition is replaced by the null condition."""
    performance: Literal["none", "rank", "loss"]
    """Which figure of a checkpoint is a second condition: its loss on the score-zoo rows, ranked or as it is."""
    performance_dropout: float = Field(0.2, ge=0, lt=1)
    """Share of training rows that ask for no performance; guidance goes from these to the good."""
    ema: float = Field(ge=0, lt=1)
    """Largest decay of the exponential moving average of the weights."""
    steps: PositiveInt
    batch_size: PositiveInt
    lr: PositiveFloat
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _terminal(self) -> "Ldm":
        if self.schedule == "linear_zero_snr" and self.prediction == "epsilon":
            raise ValueError(
                "schedule: linear_zero_snr, allowed: linear with prediction: epsilon (at SNR 0 eps says nothing of z_0)"
            )
        return self


UNDESCRIBED = ("one_hot", "learnable")
"""Kinds without an encoder: they number the tasks and say nothing of them."""


class Condition(Section):
    kind: Literal["task_info_few_shot", "task_info", "few_shot", "one_hot", "learnable", "style_images"]
    encoder: Literal["minilm", "clip", "efficientnet_lite0", "resnet18"]
    """Text encoder of the first three kinds; image encoder of `style_images`."""
    model: str
    """minilm: `package:NAME`, `hub:ID` or `local-dir:PATH`. clip: `ARCH/PRETRAINED`, or `local-dir:PATH`.
    efficientnet_lite0: `package:NAME` or `local-file:PATH`. resnet18: `torchvision:WEIGHTS` or `local-file:PATH`."""
