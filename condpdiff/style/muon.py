"""Muon for the matrices inside a transformer, AdamW for all else."""

import math
from typing import Any

import torch
from torch import Tensor, nn

RATE = 0.02
"""Muon's own; a rate for AdamW says nothing of it, as each of Muon's updates has the same norm."""
MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic a X + (b X X^T + c (X X^T)^2) X, the steepest at 0 that stay bounded."""


def orthogonalized(g: Tensor, steps: int = 5) -> Tensor:
    """U V^T of each G = U S V^T [B, m, n] float32, with singular values of about 0.7 to 1.2 in place of 1.

    In float32 and for all matrices of one shape at once: torch.optim.Muon takes bf16, one matrix after another, which
    is ten times the whole training step on a CPU that has no bf16 products.
    """
    a, b, c = NEWTON_SCHULZ
    tall = g.shape[1] > g.shape[2]
    x = g.mT if tall else g  # the products are of the short side
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT  # [B, m, m]
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonAdamW(torch.optim.AdamW):
    """Muon on the weights of linear layers below `inside`, its own group; AdamW on the model's other parameters.

    After Jordan et al. (https://kellerjordan.github.io/posts/muon): Nesterov's momentum, whose update is
    orthogonalised. For the small text-to-image model it brings AdamW's loss in half of the steps.
    """

    def __init__(self, model: nn.Module, lr: float, *, inside: str) -> None:
        """Args: lr: of AdamW."""
        linear = [m.weight for m in model.get_submodule(inside).modules() if isinstance(m, nn.Linear)]
        known = {id(weight) for weight in linear}
        others = [p for p in model.parameters() if id(p) not in known]
        groups: list[dict[str, Any]] = [{"params": linear, "lr": RATE}, {"params": others}]
        super().__init__(groups, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)  # as `training.adamw`

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of both; a matrix that Muon has moved has no gradient left for AdamW."""
        group = self.param_groups[0]
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for matrix in group["params"]:
            if matrix.grad is not None:
                by_shape.setdefault(matrix.shape, []).append(matrix)
        for (m, n), matrices in by_shape.items():
            momenta = [self.state[matrix].setdefault("momentum", torch.zeros_like(matrix)) for matrix in matrices]
            gradients: list[Any] = [matrix.grad for matrix in matrices]
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            updates = orthogonalized(torch.stack(torch._foreach_lerp(gradients, momenta, MOMENTUM)))
            torch._foreach_add_(matrices, list(updates.unbind()), alpha=-group["lr"] * math.sqrt(max(1.0, m / n)))
            for matrix in matrices:
                matrix.grad = None
        super().step()
