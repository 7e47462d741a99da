"""Controls in weight space: what a generator of LoRA weights must be held against."""

import torch
from torch import Generator, Tensor

from condpdiff.common.axes import principal_axes


def soup(theta: Tensor) -> Tensor:
    """Mean of all checkpoints [N, K] -> [1, K]."""
    return theta.double().mean(0, keepdim=True).float()


def soup_of(theta: Tensor, of: int, count: int, generator: Generator) -> Tensor:
    """`count` means of `of` random checkpoints each -> [count, K]."""
    picks = [torch.randperm(len(theta), generator=generator)[:of] for _ in range(count)]
    return torch.cat([soup(theta[pick]) for pick in picks])


def gaussian(theta: Tensor, count: int, generator: Generator) -> Tensor:
    """Independent normal draws with each coordinate's own mean and std -> [count, K]."""
    noise = torch.randn(count, theta.shape[1], generator=generator)
    return soup(theta) + theta.std(0, correction=0) * noise


def pca_gaussian(theta: Tensor, axes: int, count: int, generator: Generator) -> Tensor:
    """Normal draws along the zoo's first principal axes, with the variance that it has there -> [count, K]."""
    centred = theta - soup(theta)
    directions = principal_axes(centred, axes)  # [n, K]
    along = centred @ directions.T  # [N, n]
    std = along.std(0, correction=0) if len(directions) else along.new_zeros(0)  # [n]; std() warns of no axes
    noise = torch.randn(count, axes, generator=generator)[:, : len(directions)]
    return soup(theta) + (noise * std) @ directions


def around(theta: Tensor, radius: float, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Random checkpoints, no two alike while there are enough, each with noise of length `radius` on it.

    The noise's direction is that of a normal draw with each coordinate's own std: where the zoo varies.

    Returns:
        [count, K], and the indices [count] of the checkpoints.
    """
    rounds = -(-count // len(theta))
    picks = torch.cat([torch.randperm(len(theta), generator=generator) for _ in range(rounds)])[:count]
    noise = torch.randn(count, theta.shape[1], generator=generator) * theta.std(0, correction=0)
    return theta[picks] + radius * torch.nn.functional.normalize(noise, dim=1), picks


def spread(vectors: Tensor) -> float:
    """Root mean square distance of vectors [M, K] to their own mean."""
    return float((vectors - vectors.mean(0)).square().sum(1).mean().sqrt())


def distances(vectors: Tensor) -> Tensor:
    """Pairwise L2 [M, M] of vectors [M, K]; exact for near copies, which the matrix-product form is not."""
    return torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
