"""The autoencoder E, D: z = E(w), w_hat = D(z + xi), loss = mean squared error (Eq. 6-7).

Three shapes behind one interface: `conv1d` (ours), `pdiff` (p-diff v2's, for comparison), `pca` (the linear floor).
Then the folder `data/latents/`: z [N, C, L] of every task, and the scale that diffusion works in.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from condpdiff.autoencoder.settings import Autoencoder as Settings
from condpdiff.common.files import read_config, read_tensors, write_tensors
from condpdiff.common.matrices import (
    CLOSED_FORM_ROWS,
    Rows,
    as_rows,
    column_groups,
    evenly_spaced,
    gram_of,
    leading,
    principal_axes,
)

FILE, SCALE = "autoencoder.safetensors", "scale.safetensors"


class Autoencoder(nn.Module):
    """w [B, K] <-> z [B, C, L]."""

    def __init__(self, K: int, C: int, L: int) -> None:  # noqa: N803  the paper's letters
        super().__init__()
        self.K, self.C, self.L = K, C, L

    def encode(self, w: Tensor) -> Tensor:
        """w [B, K] -> z [B, C, L]."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """z [B, C, L] -> w_hat [B, K]."""
        raise NotImplementedError

    def fit_closed_form(self, w: Rows | Tensor) -> bool:
        """Learn from w [N, K] what needs no gradient steps; says whether that is all there is to learn.

        Looks at `CLOSED_FORM_ROWS` of the rows at most, and at a few columns at a time.
        """
        return False

    def forward(self, w: Tensor, noise: float, input_noise: float) -> Tensor:
        """The loss (Eq. 6-7), with xi of std `noise`."""
        z = self.encode(torch.randn_like(w).mul_(input_noise).add_(w))
        return F.mse_loss(self.decode(z + noise * torch.randn_like(z)), w)


class PatchLinear(nn.Module):
    """A linear map of its own for each of P patches: [B, P, i] -> [B, P, o].

    LoRA weights have no translation structure: what a filter learns at one place does not serve another.
    """

    def __init__(self, P: int, i: int, o: int) -> None:  # noqa: N803
        super().__init__()
        self.weight = nn.Parameter(torch.randn(P, i, o) / math.sqrt(i))
        self.bias = nn.Parameter(torch.zeros(P, 1, o))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x.transpose(0, 1), self.weight).transpose(0, 1)


class ResidualConv(nn.Module):
    """x + conv(silu(conv(silu(norm(x))))), length kept; [B, c, 1, P] in channels-last memory, as in the denoiser."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(8, channels), channels)
        self.conv1 = nn.Conv2d(channels, channels, (1, 5), padding=(0, 2))
        self.conv2 = nn.Conv2d(channels, channels, (1, 5), padding=(0, 2))
        nn.init.zeros_(self.conv2.weight)  # every block starts as the identity
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


class PatchedAutoencoder(Autoencoder):
    """`conv1d`: fold w into P patches, a linear map a patch (they alone see K), residual convolutions, a bottleneck."""

    def __init__(self, K: int, C: int, L: int, patch: int, width: int, depth: int) -> None:  # noqa: N803
        super().__init__(K, C, L)
        self.patch, self.width, self.P = patch, width, math.ceil(K / patch)
        self.fold = PatchLinear(self.P, patch, width)
        self.down = nn.Sequential(*(ResidualConv(width) for _ in range(depth)))
        self.to_latent = nn.Linear(width * self.P, C * L)
        self.from_latent = nn.Linear(C * L, width * self.P)
        self.up = nn.Sequential(*(ResidualConv(width) for _ in range(depth)))
        self.unfold = PatchLinear(self.P, width, patch)

    def encode(self, w: Tensor) -> Tensor:
        x = F.pad(w, (0, self.P * self.patch - self.K)) if self.K % self.patch else w  # zeros behind the end
        x = self.fold(x.unflatten(1, (self.P, self.patch))).contiguous()  # [B, P, width]
        x = x.transpose(1, 2).unsqueeze(2)  # [B, width, 1, P], in channels-last memory
        return self.to_latent(self.down(x).flatten(1)).unflatten(1, (self.C, self.L))

    def decode(self, z: Tensor) -> Tensor:
        x = self.from_latent(z.flatten(1)).unflatten(1, (-1, 1, self.P))  # [B, width, 1, P]
        x = self.up(x.contiguous(memory_format=torch.channels_last)).squeeze(2)  # [B, width, P]
        return self.unfold(x.transpose(1, 2)).flatten(1)[:, : self.K]

    @torch.no_grad()
    def fit_closed_form(self, w: Rows | Tensor) -> bool:
        """Start as a linear autoencoder, for which gradient steps need thousands; convolutions, the identity, follow.

        Each patch map starts at its patch's principal axes, the bottleneck at those of the folded weights, whitened.
        """
        rows, fold, unfold = as_rows(w), self.fold, self.unfold
        picked = evenly_spaced(rows.shape[0], CLOSED_FORM_ROWS)
        folded = torch.empty(len(picked), self.width, self.P)
        width = min(self.width, len(picked), self.patch)
        fold.weight.zero_(), unfold.weight.zero_()
        for columns in column_groups(self.P * self.patch, len(picked), self.patch):
            x = rows.columns(picked, columns.start, min(columns.stop, self.K))
            x = F.pad(x, (0, columns.stop - columns.start - x.shape[1]))
            x = x.unflatten(1, (-1, self.patch)).transpose(0, 1)  # [p, n, patch]
            part = slice(columns.start // self.patch, columns.stop // self.patch)
            mean = x.mean(1, keepdim=True)  # [p, 1, patch]
            _, _, axes = torch.pca_lowrank(x - mean, q=width, center=False)  # [p, patch, width]
            fold.weight[part, :, :width], unfold.weight[part, :width] = axes, axes.transpose(1, 2)
            fold.bias[part, :, :width], unfold.bias[part] = -mean @ axes, mean
            folded[:, :, part] = torch.baddbmm(fold.bias[part], x, fold.weight[part]).permute(1, 2, 0)
        folded = folded.flatten(1)  # [n, width P], centred
        axes = principal_axes(folded, self.C * self.L)  # [m, width P]
        std = (folded @ axes.T).square().mean(0).sqrt().clamp_min(1e-6)
        for parameter in (*self.to_latent.parameters(), *self.from_latent.parameters()):
            parameter.zero_()
        self.to_latent.weight[: len(axes)] = axes / std[:, None]
        self.from_latent.weight[:, : len(axes)] = axes.T * std
        return False


class PdiffAutoencoder(Autoencoder):
    """`pdiff`: the layer shapes of p-diff v2's autoencoder (NUS-HPC-AI-Lab/Neural-Network-Parameter-Diffusion)."""

    PAIRS = ((1, 64), (64, 128), (128, 256), (256, 256), (256, 32))

    def __init__(self, K: int, C: int, L: int) -> None:  # noqa: N803
        super().__init__(K, C, L)
        self.halved = math.ceil(K / 2 ** len(self.PAIRS))
        down = [(nn.Conv1d(i, o, 7, 2, 3), nn.BatchNorm1d(o), nn.LeakyReLU()) for i, o in self.PAIRS]
        self.down = nn.Sequential(*(nn.Sequential(*layers) for layers in down))
        self.to_latent = nn.Linear(32 * self.halved, C * L)
        self.from_latent = nn.Linear(C * L, 32 * self.halved)
        up: list[nn.Module] = []
        for i, o in reversed(self.PAIRS):
            up += [nn.ConvTranspose1d(o, i, 7, 2, 3, output_padding=1)]
            up += [nn.BatchNorm1d(i), nn.ELU()] if i > 1 else []
        self.up = nn.Sequential(*up)

    def encode(self, w: Tensor) -> Tensor:
        padded = F.pad(w, (0, self.halved * 2 ** len(self.PAIRS) - self.K))
        x = self.down(padded.unsqueeze(1))  # [B, 32, K / 32]
        return self.to_latent(x.flatten(1)).unflatten(1, (self.C, self.L))

    def decode(self, z: Tensor) -> Tensor:
        x = self.from_latent(z.flatten(1)).unflatten(1, (-1, self.halved))  # [B, 32, K / 32]
        return self.up(x).squeeze(1)[:, : self.K]


class PcaAutoencoder(Autoencoder):
    """`pca`: the best linear autoencoder of C L numbers, in closed form; a network must justify itself against it."""

    def __init__(self, K: int, C: int, L: int) -> None:  # noqa: N803
        super().__init__(K, C, L)
        self.mean = nn.Parameter(torch.zeros(K), requires_grad=False)
        self.axes = nn.Parameter(torch.zeros(C * L, K), requires_grad=False)

    def encode(self, w: Tensor) -> Tensor:
        return ((w - self.mean) @ self.axes.T).unflatten(1, (self.C, self.L))

    def decode(self, z: Tensor) -> Tensor:
        return z.flatten(1) @ self.axes + self.mean

    @torch.no_grad()
    def fit_closed_form(self, w: Rows | Tensor) -> bool:
        rows = as_rows(w)
        picked = evenly_spaced(rows.shape[0], CLOSED_FORM_ROWS)
        groups = list(column_groups(self.K, len(picked)))

        def centred() -> Iterator[Tensor]:
            for columns in groups:
                part = rows.columns(picked, columns.start, columns.stop)
                self.mean[columns] = part.mean(0)
                yield part.sub_(self.mean[columns])

        vectors = leading(gram_of(centred()), self.C * self.L).float()  # [n, m]
        axes = self.axes.zero_()[: vectors.shape[1]]  # a view: what follows writes into it
        for columns, part in zip(groups, centred(), strict=True):
            axes[:, columns] = vectors.T @ part
        axes /= torch.linalg.vector_norm(axes, dim=1, keepdim=True)
        return True


ARCHITECTURES: dict[str, Any] = {"conv1d": PatchedAutoencoder, "pdiff": PdiffAutoencoder, "pca": PcaAutoencoder}


def config_of(settings: Settings, K: int) -> dict[str, Any]:  # noqa: N803
    """What `build` needs; it travels inside the weights file."""
    config = {"arch": settings.arch, "K": K, "C": settings.latent_channels, "L": settings.latent_length}
    return config | settings.model_dump(include={"patch", "width", "depth"} if settings.arch == "conv1d" else set())


def build(config: dict[str, Any]) -> Autoencoder:
    """An untrained autoencoder of a config that `config_of` made."""
    model: Autoencoder = ARCHITECTURES[config["arch"]](**{key: config[key] for key in config if key != "arch"})
    return model


def save(path: Path, model: Autoencoder, config: dict[str, Any]) -> None:
    """Weights and config in one safetensors file; `load` is its inverse."""
    write_tensors(path, model.state_dict(), config)


def load(path: Path) -> Autoencoder:
    """The autoencoder of a file that `save` wrote, ready to encode and decode."""
    model = build(read_config(path))
    model.load_state_dict(read_tensors(path))
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def encode_all(model: Autoencoder, w: Rows | Tensor) -> Tensor:
    """w [N, K] -> z [N, C, L], in batches of at most 64."""
    return torch.cat([model.encode(batch) for part in as_rows(w).parts() for batch in part.split(64)])


@torch.inference_mode()
def decode_all(model: Autoencoder, z: Tensor) -> Tensor:
    """z [S, C, L] -> w_hat [S, K], in batches of 64."""
    return torch.cat([model.decode(part) for part in z.split(64)])


@dataclass(frozen=True)
class Scale:
    """Brings latents to mean 0 and std 1, position by position, before diffusion."""

    shift: Tensor  # [C, L], as scale
    scale: Tensor

    @staticmethod
    def of(z: Tensor) -> "Scale":
        """Scale of latents [M, C, L] of all tasks together."""
        return Scale(z.mean(0), z.std(0, correction=0).clamp_min(1e-8))

    def apply(self, z: Tensor) -> Tensor:
        """`undo` is its inverse."""
        return (z - self.shift) / self.scale

    def undo(self, z: Tensor) -> Tensor:
        """`apply` is its inverse."""
        return z * self.scale + self.shift


def load_scale(folder: Path) -> Scale:
    """The scale of a latents folder."""
    return Scale(**read_tensors(folder / SCALE))


def save_latents(folder: Path, z: dict[str, Tensor]) -> None:
    """Write `<task>.safetensors` (z [N, C, L]) and `scale.safetensors`."""
    write_tensors(folder / SCALE, vars(Scale.of(torch.cat(list(z.values())))))
    for task, latents in z.items():
        path = folder / f"{task}.safetensors"
        path.parent.mkdir(exist_ok=True)  # of a family
        write_tensors(path, {"z": latents})


def load_latents(folder: Path, tasks: list[str]) -> dict[str, Tensor]:
    """Normalised latents [N, C, L] of every task."""
    scale = load_scale(folder)
    return {task: scale.apply(read_tensors(folder / f"{task}.safetensors")["z"]) for task in tasks}
