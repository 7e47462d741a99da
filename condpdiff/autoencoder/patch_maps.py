"""Linear maps between the patches of w and channels: one a patch, or one for all."""

import math

import torch
from torch import Tensor, nn

from condpdiff.zoo.layout import Layout


class PatchLinear(nn.Module):
    """A linear map of its own for each of P patches: [B, P, i] -> [B, P, o].

    LoRA weights have no translation structure, so what a filter learns at one place does not serve another;
    an unshared map a patch is a convolution of stride = kernel = patch whose weights vary with position.
    """

    def __init__(self, P: int, i: int, o: int) -> None:  # noqa: N803
        super().__init__()
        self.weight = nn.Parameter(torch.randn(P, i, o) / math.sqrt(i))
        self.bias = nn.Parameter(torch.zeros(P, 1, o))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x.transpose(0, 1), self.weight).transpose(0, 1)  # [B, P, o]


class SharedLinear(nn.Module):
    """One linear map for all P patches, told apart by learned vectors: [B, P, i] -> [B, P, o].

    A patch's vector is that of its position plus that of the module that its first weight belongs to. It is added on
    the narrow side of the map: to what the fold gives (`before` false), to what the unfold takes (`before`).
    """

    module: Tensor

    def __init__(self, P: int, i: int, o: int, modules: int, before: bool = False) -> None:  # noqa: N803
        super().__init__()
        self.before, width = before, i if before else o
        self.linear = nn.Linear(i, o)
        self.position = nn.Parameter(0.02 * torch.randn(P, width))
        self.kind = nn.Parameter(0.02 * torch.randn(modules, width))
        self.register_buffer("module", torch.zeros(P, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        place = self.position + self.kind[self.module]  # [P, width]
        return self.linear(x + place) if self.before else self.linear(x) + place  # [B, P, o]


def modules_of_patches(layout: Layout, patch: int) -> Tensor:
    """[P] int64: for each patch of w, the number of the module that its first weight belongs to."""
    numbers = {module: i for i, module in enumerate(dict.fromkeys(e.module for e in layout.entries))}
    module = torch.tensor([numbers[e.module] for e in layout.entries])
    offsets = torch.tensor([e.offset for e in layout.entries])
    return module[torch.searchsorted(offsets, torch.arange(0, layout.K, patch), right=True) - 1]
