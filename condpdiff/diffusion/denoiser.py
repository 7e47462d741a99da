"""The denoiser eps_theta(z_t, t, tau(y), p): a conditional 1-D convolutional U-Net on the latent z [C, L] (Eq. 8).

Beside the condition y it may take a checkpoint's performance p, as G.pt (arXiv 2209.12892) takes the loss: a sampler
that is faithful to the zoo scores like the zoo. Latents of tasks lie many times farther apart than a task's own are
spread, and an error small against the whole is many spreads: so the mean mu(y) is regressed, and diffusion generates
the residual r alone, z = mu(y) + s r, as in CorrDiff (arXiv 2309.15214).

Signals of length l are images of one row, [B, c, 1, l] in channels-last memory: on a CPU convolutions run several
times faster so than in one dimension.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn

WIDTH = 512  # of the two hidden layers of mu's network


def conv(i: int, o: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A 1-D convolution over the last axis of [B, i, 1, l]."""
    return nn.Conv2d(i, o, (1, kernel), stride=(1, stride), padding=(0, kernel // 2))


def perceptron(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(i, o), nn.SiLU(), nn.Linear(o, o))


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer, which gives 0 until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Tau(nn.Module):
    """tau: projects a condition [B, d_cond] to [B, d]; a dropped row becomes the learned null condition.

    With `tasks`, conditions are indices [B, 1] into vectors that are learned here.
    """

    def __init__(self, d_cond: int, d: int, tasks: int) -> None:
        super().__init__()
        self.table = nn.Embedding(tasks, d_cond) if tasks else None
        self.project = perceptron(d_cond, d)
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
        self.embed = perceptron(1, d)
        self.null = nn.Parameter(torch.zeros(d))

    def forward(self, p: Tensor) -> Tensor:
        asked = self.embed(2 * p.nan_to_num()[:, None] - 1)  # [B, d]
        return torch.where(p.isnan()[:, None], self.null, asked)


class Mean(nn.Module):
    """mu(y) = b + W (y - y_mean) + f(y), and the spread s of latents round it.

    W, b (0 before) and s (1) are fitted in closed form; f is a network, 0 until `generate.task_loss` trains it. With
    `tasks`, conditions are indices [B, 1], and W is a table of the tasks' means.
    """

    def __init__(self, d_cond: int, shape: tuple[int, int], tasks: int, network: bool) -> None:
        super().__init__()
        self.shape, self.tasks = shape, tasks
        d, width = tasks or d_cond, shape[0] * shape[1]
        self.centre, self.bias = (nn.Parameter(torch.zeros(n), requires_grad=False) for n in (d, width))
        self.weight = nn.Parameter(torch.zeros(width, d), requires_grad=False)
        self.spread = nn.Parameter(torch.ones(shape), requires_grad=False)
        self.network = None
        if network:
            layers = nn.Sequential(*perceptron(d, WIDTH), nn.SiLU(), zeroed(nn.Linear(WIDTH, width)))
            self.network = layers.requires_grad_(False)  # reconstruction leaves it alone

    def forward(self, y: Tensor) -> Tensor:
        """y [B, d_cond] -> mean latents [B, C, L]."""
        x = nn.functional.one_hot(y[:, 0].long(), self.tasks).to(self.weight) if self.tasks else y
        mean = self.bias + (x - self.centre) @ self.weight.T  # [B, C L]
        return (mean if self.network is None else mean + self.network(x)).unflatten(1, self.shape)

    @torch.no_grad()
    def residual(self, z: Tensor, y: Tensor) -> Tensor:
        """Latents z [B, C, L] -> r of unit spread; `latent` is its inverse."""
        return (z - self(y)) / self.spread

    def latent(self, r: Tensor, y: Tensor) -> Tensor:
        """r [B, C, L] -> z [B, C, L]; `residual` is its inverse."""
        return self(y) + self.spread * r

    @torch.no_grad()
    def fit(self, z: Mapping[str, Tensor], y: Mapping[str, Tensor], ridge: float) -> None:
        """Ridge regression from each task's conditions [V, d_cond] to the mean of its latents z [N, C, L]; all weigh
        the same. The penalty is `ridge` times the conditions' mean squared distance from their mean."""
        eye = torch.eye(max(self.tasks, 1), dtype=torch.float64)
        x = {k: eye[each[:, 0].long()] if self.tasks else each.double() for k, each in y.items()}
        means = {k: each.double().mean(0).flatten() for k, each in z.items()}
        inputs = torch.cat(list(x.values()))  # [sum V, d]
        targets = torch.cat([means[k].expand(len(each), -1) for k, each in x.items()])  # [sum V, C L]
        weights = torch.cat([eye.new_full((len(e),), 1 / len(e) / len(x)) for e in x.values()])
        centre, bias = weights @ inputs, weights @ targets
        root = weights.sqrt()[:, None]
        a, b = root * (inputs - centre), root * (targets - bias)
        gram = a @ a.T  # the same solution as in d dimensions, of which there may be more than rows
        penalty = (ridge * gram.trace()).clamp_min(1e-12)  # W = 0 where there is one condition alone
        weight = a.T @ torch.linalg.solve(gram + penalty * torch.eye(len(a)), b)  # [d, C L]
        for parameter, value in ((self.centre, centre), (self.bias, bias), (self.weight, weight.T)):
            parameter.copy_(value)
        within = torch.stack([each.double().var(0, correction=0) for each in z.values()]).mean(0)  # [C, L]
        off = (root * (targets - bias - (inputs - centre) @ weight)).square().sum(0)
        self.spread.copy_((within + off.unflatten(0, self.shape)).sqrt().clamp_min(1e-8))


class Block(nn.Module):
    """Residual convolutions whose norm is scaled and shifted by time and condition (FiLM)."""

    def __init__(self, i: int, o: int, d: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(math.gcd(8, i), i)
        self.conv1 = conv(i, o, 3)
        self.film = nn.Linear(d, 2 * o)
        self.norm2 = nn.GroupNorm(math.gcd(8, o), o)
        self.conv2 = zeroed(conv(o, o, 3))  # every block starts as its skip
        self.skip = conv(i, o, 1) if i != o else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))  # [B, o, 1, l]
        scale, shift = self.film(F.silu(emb))[..., None, None].chunk(2, dim=1)  # [B, o, 1, 1] each
        h = self.norm2(h) * (1 + scale) + shift
        return self.skip(x) + self.conv2(F.silu(h))  # [B, o, 1, l]


class Denoiser(nn.Module):
    """U-Net of `channels` and so many `blocks` at lengths L, L/2, L/4 (L is a multiple of 4), with additive embeddings.

    A position table [channels, L] comes first: latents have no translation structure. `tasks` is the number of learned
    vectors of `learnable` conditions, or 0; with `network` mu(y) has one in it, for the task loss to train.
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
        self.time = perceptron(channels[0], d)
        self.tau = Tau(d_cond, d, tasks)
        self.mean = Mean(d_cond, (C, L), tasks, network)
        self.embed_p = Performance(d) if performance else None
        self.position = nn.Parameter(0.02 * torch.randn(channels[0], L))
        self.enter = conv(C, channels[0], 3)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        before = channels[0]
        for level, width in enumerate(channels):
            self.shrink.append(conv(before, before, 3, stride=2) if level else nn.Identity())
            self.down.append(_stack([before] + [width] * blocks, d))
            before = width
        for height, width in enumerate(reversed(channels)):
            self.grow.append(nn.Upsample(scale_factor=(1, 2)) if height else nn.Identity())
            self.up.append(_stack([before + width if height else width] + [width] * blocks, d))
            before = width
        self.leave = zeroed(conv(channels[0], C, 3))  # the first prediction is 0, the mean of eps

    @property
    def device(self) -> torch.device:
        return self.position.device

    def forward(self, z_t: Tensor, t: Tensor, y: Tensor, drop: Tensor | None = None, p: Tensor | None = None) -> Tensor:
        """Noise (or v, or z_0) [B, C, L] of noisy latents z_t [B, C, L] at timesteps t [B], int64 in 0..T-1.

        Conditions y are [B, d_cond], or task indices [B, 1]; where `drop` [B] is True, the null condition. The
        performance asked for, p [B], is from 0, the zoo's worst, to 1, its best; NaN, or None, asks for none.
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
        for height, (grow, blocks) in enumerate(zip(self.grow, self.up, strict=True)):
            h = torch.cat([grow(h), skips.pop()], dim=1) if height else grow(h)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, emb)
        return self.leave(F.silu(h)).squeeze(2)  # [B, C, L]


def _stack(widths: Sequence[int], d: int) -> nn.ModuleList:
    return nn.ModuleList(Block(i, o, d) for i, o in pairwise(widths))
