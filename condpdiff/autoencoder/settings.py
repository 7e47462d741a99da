"""Section `ae`: the autoencoder E, D (Eq. 6-7)."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from condpdiff.common.settings import Section


class Autoencoder(Section):
    arch: Literal["conv1d", "pdiff", "pca"]
    """`conv1d`: ours, patched; `pdiff`: p-diff v2's shape; `pca`: the linear floor."""
    latent_channels: PositiveInt
    """C of z [C, L]."""
    latent_length: PositiveInt
    """L of z [C, L]; the denoiser halves it twice."""
    patch: PositiveInt
    """Weights folded into one position of the patched front (conv1d)."""
    width: PositiveInt
    """Channels a position (conv1d)."""
    depth: int = Field(ge=0)
    """Residual convolutions on each side (conv1d)."""
    start: Literal["pca", "random"] = "pca"
    """`pca`: principal axes, then gradient steps; `random`: gradient steps alone (conv1d; pdiff always)."""
    noise: NonNegativeFloat
    """Std of xi, added to z in training (Eq. 7)."""
    input_noise: NonNegativeFloat
    """Std of the noise added to w in training."""
    steps: PositiveInt
    batch_size: PositiveInt
    lr: PositiveFloat
    """Peak rate; of conv1d, at K = 18,432, from where it falls as 1 / sqrt(K)."""
    seed: int = Field(0, ge=0)
