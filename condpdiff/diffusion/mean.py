"""mu(y): where a condition's LoRAs lie, so that diffusion has the spread round it to learn and nothing else.

Latents of tasks lie many times farther apart than a task's own are spread. A denoiser whose error is small against the
whole is then off by many spreads, so the mean is regressed and diffusion generates the residual r, z = mu(y) + s r, as
in CorrDiff (arXiv 2309.15214).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

WIDTH = 512
"""Of f's two hidden layers."""


class Mean(nn.Module):
    """mu(y) = b + W (y - y_mean) + f(y), and the spread s of latents round it.

    W, b and s are fitted in closed form: W = b = 0 and s = 1 until then. f is a network that the task loss trains
    (`generate.task_loss`), 0 until then. `learnable` conditions are task indices [B, 1] in place of vectors; W is then
    a table of the tasks' means.
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
            widths = [nn.Linear(d, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, width)]
            self.network = nn.Sequential(*widths).requires_grad_(False)  # reconstruction leaves it alone
            nn.init.zeros_(widths[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(widths[-1].bias)  # type: ignore[arg-type]

    def forward(self, y: Tensor) -> Tensor:
        """Conditions y [B, d_cond] -> mean latents [B, C, L]."""
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
        """Ridge regression from the conditions [V, d_cond] of every task to the mean of its latents z [N, C, L].

        Each task weighs the same. The penalty is `ridge` times the conditions' mean squared distance from their mean.
        """
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
        solved = torch.linalg.solve(gram + penalty * torch.eye(len(a)), b)
        for name, value in (("centre", centre), ("bias", bias), ("weight", (a.T @ solved).T)):
            getattr(self, name).copy_(value)
        within = torch.stack([each.double().var(0, correction=0) for each in z.values()]).mean(0)  # [C, L]
        off = (root * (targets - bias - (inputs - centre) @ (a.T @ solved))).square().sum(0)
        self.spread.copy_((within + off.unflatten(0, self.shape)).sqrt().clamp_min(1e-8))
