"""Section `ae`: the autoencoder E, D (Eq. 6-7)."""

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from condpdiff.common.settings import Section


class Autoencoder(Section):
    arch: Literal["conv1d", "pdiff", "pca"]  # ours, patched; p-diff v2's shape; the linear floor
    latent_channels: PositiveInt  # C of z [C, L]
    latent_length: PositiveInt  # L of z [C, L]; the denoiser halves it twice
    patch: PositiveInt  # weights folded into one position of the patched front (conv1d)
    width: PositiveInt  # channels a position (conv1d)
    depth: NonNegativeInt  # residual convolutions on each side (conv1d)
    start: Literal["pca", "random"] = "pca"  # principal axes, then gradient steps, or these alone (pdiff always)
    noise: NonNegativeFloat  # std of xi, added to z in training (Eq. 7)
    input_noise: NonNegativeFloat  # std of the noise added to w in training
    steps: PositiveInt
    batch_size: PositiveInt
    lr: PositiveFloat  # peak; of conv1d, at K = 18,432, from where it falls as 1 / sqrt(K)
    seed: NonNegativeInt = 0
