"""The folder `data/latents/`: z [N, C, L] of every task, and the scale that diffusion works in."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from condpdiff.common.files import read_tensors, write_tensors

SCALE = "scale.safetensors"


@dataclass(frozen=True)
class Scale:
    """Brings latents to mean 0 and std 1, position by position, before diffusion; [C, L] each."""

    shift: Tensor
    scale: Tensor

    @staticmethod
    def of(z: Tensor) -> "Scale":
        """Scale of latents [M, C, L] of all tasks together."""
        return Scale(z.mean(0), z.std(0, correction=0).clamp_min(1e-8))

    def apply(self, z: Tensor) -> Tensor:
        """z -> normalised z; `undo` is its inverse."""
        return (z - self.shift) / self.scale

    def undo(self, z: Tensor) -> Tensor:
        """normalised z -> z; `apply` is its inverse."""
        return z * self.scale + self.shift


def save_latents(folder: Path, z: dict[str, Tensor]) -> None:
    """Write `<task>.safetensors` (z) and `scale.safetensors` (shift, scale)."""
    save_scale(folder, Scale.of(torch.cat(list(z.values()))))
    for task, latents in z.items():
        path = folder / f"{task}.safetensors"
        path.parent.mkdir(exist_ok=True)  # of a family
        write_tensors(path, {"z": latents})


def save_scale(folder: Path, scale: Scale) -> None:
    """Write `scale.safetensors`; `load_scale` is its inverse."""
    write_tensors(folder / SCALE, {"shift": scale.shift, "scale": scale.scale})


def load_scale(folder: Path) -> Scale:
    """The scale of a latents folder."""
    tensors = read_tensors(folder / SCALE)
    return Scale(tensors["shift"], tensors["scale"])


def load_latents(folder: Path, tasks: list[str]) -> dict[str, Tensor]:
    """Normalised latents [N, C, L] of every task."""
    scale = load_scale(folder)
    return {task: scale.apply(read_tensors(folder / f"{task}.safetensors")["z"]) for task in tasks}
