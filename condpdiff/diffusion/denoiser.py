"""The denoiser eps_theta(z_t, t, tau(y), p): a conditional 1-D convolutional U-Net on the latent z [C, L] (Eq. 8).

Beside the paper's condition y it may take a checkpoint's performance p, as G.pt (Peebles et al., arXiv 2209.12892)
takes the loss: a sampler that is merely faithful to the zoo scores like the zoo, so something must tell it which
checkpoints are good.

Signals of length l are images of one row, [B, c, 1, l] in channels-last memory: convolutions on a CPU run several
times faster so than in one dimension, forward and backward.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn

from condpdiff.diffusion.mean import Mean


class Tau(nn.Module):
    """tau: projects a condition [B, d_cond] to [B, d]; a dropped row becomes the learned null condition.

    `learnable` conditions are task indices [B, 1] in place of vectors; the table of vectors is learned here.
    """

    def __init__(self, d_cond: int, d: int, tasks: int) -> None:
        super().__init__()
        self.table = nn.Embedding(tasks, d_cond) if tasks else None
        self.project = nn.Sequential(nn.Linear(d_cond, d), nn.SiLU(), nn.Linear(d, d))
        self.null = nn.Parameter(torch.zeros(d))

    def forward(self, y: Tensor, drop: Tensor | None) -> Tensor:
        if self.table is not None:
            y = self.table(y[:, 0].long())  # [B, d_cond]
        c = self.project(y)  # [B, d]
        return c if drop is None else torch.where(drop[:, None], self.null, c)


class Performance(nn.Module):
    """Embeds a performance p [B] in 0..1, smoothly; NaN asks for none and becomes the learned null vector."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(1, d), nn.SiLU(), nn.Linear(d, d))
        self.null = nn.Parameter(torch.zeros(d))

    def forward(self, p: Tensor) -> Tensor:
        asked = self.embed(2 * p.nan_to_num()[:, None] - 1)  # [B, d]
        return torch.where(p.isnan()[:, None], self.null, asked)


def conv(i: int, o: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A 1-D convolution over the last axis of [B, i, 1, l]."""
    return nn.Conv2d(i, o, (1, kernel), stride=(1, stride), padding=(0, kernel // 2))


class Block(nn.Module):
    """Residual convolutions whose norm is scaled and shifted by time and condition (FiLM)."""

    def __init__(self, i: int, o: int, d: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(math.gcd(8, i), i)
        self.conv1 = conv(i, o, 3)
        self.film = nn.Linear(d, 2 * o)
        self.norm2 = nn.GroupNorm(math.gcd(8, o), o)
        self.conv2 = conv(o, o, 3)
        self.skip = conv(i, o, 1) if i != o else nn.Identity()
        nn.init.zeros_(self.conv2.weight)  # every block starts as its skip
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))  # [B, o, 1, l]
        scale, shift = self.film(F.silu(emb))[..., None, None].chunk(2, dim=1)  # [B, o, 1, 1] each
        h = self.norm2(h) * (1 + scale) + shift
        return self.skip(x) + self.conv2(F.silu(h))  # [B, o, 1, l]


class Denoiser(nn.Module):
    """U-Net over lengths L, L/2, L/4 with additive time and condition embeddings.

    A position table [channels, L] comes first: latents have no translation structure.

    Args:
        C, L: shape of the latent; L is a multiple of 4.
        channels: channels at lengths L, L/2, L/4.
        blocks: residual blocks at each length.
        d_cond: width of a condition vector.
        tasks: number of learned task vectors (`condition.kind: learnable`), else 0.
        performance: takes a performance p beside y.
        network: mu(y) has a network in it, for the task loss to train.
    """

    def __init__(
        self,
        C: int,  # noqa: N803  the paper's letters
        L: int,  # noqa: N803
        channels: tuple[int, ...],
        blocks: int,
        d_cond: int,
        tasks: int = 0,
        performance: bool = False,
        network: bool = False,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"C": C, "L": L, "channels": channels, "blocks": blocks, "d_cond": d_cond}
        self.config |= {"tasks": tasks, "performance": performance, "network": network}
        d = 4 * channels[0]
        self.time_features = Timesteps(channels[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = nn.Sequential(nn.Linear(channels[0], d), nn.SiLU(), nn.Linear(d, d))
        self.tau = Tau(d_cond, d, tasks)
        self.mean = Mean(d_cond, (C, L), tasks, network)
        self.embed_p = Performance(d) if performance else None
        self.position = nn.Parameter(0.02 * torch.randn(channels[0], L))
        self.enter = conv(C, channels[0], 3)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(channels):
            before = channels[max(level - 1, 0)]
            self.shrink.append(conv(before, before, 3, stride=2) if level else nn.Identity())
            widths = [before] + [width] * blocks
            self.down.append(nn.ModuleList(Block(i, o, d) for i, o in zip(widths, widths[1:], strict=False)))
        for level in reversed(range(len(channels))):
            width = channels[level]
            below = channels[min(level + 1, len(channels) - 1)]
            deepest = level == len(channels) - 1
            self.grow.append(nn.Identity() if deepest else nn.Upsample(scale_factor=(1, 2)))
            widths = [width if deepest else below + width] + [width] * blocks
            self.up.append(nn.ModuleList(Block(i, o, d) for i, o in zip(widths, widths[1:], strict=False)))
        self.leave = conv(channels[0], C, 3)
        nn.init.zeros_(self.leave.weight)  # the first prediction is 0, the mean of eps
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.position.device

    def forward(self, z_t: Tensor, t: Tensor, y: Tensor, drop: Tensor | None = None, p: Tensor | None = None) -> Tensor:
        """Predict noise (or v, or z_0).

        Args:
            z_t: noisy latents [B, C, L].
            t: timesteps [B], int64 in 0..T-1.
            y: conditions [B, d_cond], or task indices [B, 1].
            drop: [B] bool; True puts the null condition in place of y.
            p: performance asked for [B], 0 the zoo's worst and 1 its best; NaN, or None, asks for none.
        """
        emb = self.time(self.time_features(t)) + self.tau(y, drop)  # [B, d]
        if self.embed_p is not None:
            emb = emb + self.embed_p(torch.full_like(emb[:, 0], torch.nan) if p is None else p)
        x = z_t.unsqueeze(2).contiguous(memory_format=torch.channels_last)  # [B, C, 1, L]
        h = self.enter(x) + self.position[:, None]  # [B, channels[0], 1, L]
        skips: list[Tensor] = []
        for shrink, blocks in zip(self.shrink, self.down, strict=True):
            h = shrink(h)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, emb)  # [B, channels[level], 1, L / 2^level]
            skips.append(h)
        h = skips.pop()
        for depth, (grow, blocks) in enumerate(zip(self.grow, self.up, strict=True)):
            h = grow(h) if depth == 0 else torch.cat([grow(h), skips.pop()], dim=1)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, emb)
        return self.leave(F.silu(h)).squeeze(2)  # [B, C, L]
