"""The arms of the comparison as vectors: what a generator of LoRA weights is held against."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor

from condpdiff.autoencoder.models import Autoencoder, decode_all, encode_all
from condpdiff.common.files import write_json, write_tensors
from condpdiff.common.matrices import evenly_spaced, principal_axes
from condpdiff.evaluate.settings import Eval
from condpdiff.zoo.normalized import Frame

SOUP_OF = 16


class Arm(NamedTuple):
    """One arm of the comparison."""

    vectors: Tensor  # [M, K]: its candidates
    checkpoints: list[int | None]  # index in the zoo of each candidate that is, or comes from, one checkpoint


def build_arms(theta: Tensor, samples: Tensor, frame: Frame, decoder: Autoencoder, settings: Eval) -> dict[str, Arm]:
    """All arms that are vectors, in the report's order, drawn by `eval.seed`.

    Controls that can be drawn again have `eval.candidates`, so that no arm's best is of more draws than another's.
    checkpoint_noise is as far from a checkpoint as condpdiff's samples are from their nearest one (median).
    Args: theta: the zoo [N, K_all]; samples: the generated LoRAs [S, K_all].
    """
    many, generator = settings.candidates, Generator().manual_seed(settings.seed)
    picked = evenly_spaced(len(theta), many)
    rebuilt = evenly_spaced(len(theta), settings.extra_candidates)
    reach = torch.tensor([distance_to_zoo(sample, theta) for sample in samples])  # NaN: no LoRA at all
    noisy, noised = around(theta, float(reach.nanmedian().nan_to_num()), many, generator)
    w = frame.to_w(theta[rebuilt])

    def arm(vectors: Tensor, checkpoints: Tensor | None = None) -> Arm:
        return Arm(vectors, [None] * len(vectors) if checkpoints is None else checkpoints.tolist())

    return {
        "original": arm(theta[picked], picked),
        "soup": arm(soup(theta)),
        "soup_16": arm(soup_of(theta, SOUP_OF, many, generator)),
        "gaussian": arm(gaussian(theta, many, generator)),
        "pca_gaussian": arm(pca_gaussian(theta, settings.pca_axes, many, generator)),
        "checkpoint_noise": arm(noisy, noised),
        "ae_reconstruction": arm(frame.to_theta(decode_all(decoder, encode_all(decoder, w))), rebuilt),
        "zero_decode": arm(frame.to_theta(torch.zeros(1, len(frame.positions)))),
        "condpdiff": arm(samples),
    }


def distance_to_zoo(vector: Tensor, theta: Tensor, checkpoint: int | None = None) -> float:
    """L2 from `vector` [K] to the nearest of the checkpoints theta [N, K], leaving out the one that it is itself."""
    others = theta if checkpoint is None or len(theta) == 1 else theta[torch.arange(len(theta)) != checkpoint]
    return float(torch.linalg.vector_norm(others - vector, dim=1).min())


def first_best(select: Sequence[float] | pd.Series) -> int:
    """Index of an arm's candidate that is best on the select rows: the first of equals, NaN never before a number."""
    return int(np.nan_to_num(np.asarray(select, float), nan=-np.inf).argmax())


def write_geometry(folder: Path, arms: dict[str, Arm], theta: Tensor) -> None:
    """Write what the figures need of the vectors: `distances.safetensors` [M, M], `points.csv`, `spread.json`."""
    shown = {"checkpoint": theta} | {k: a.vectors for k, a in arms.items() if k not in ("original", "zero_decode")}
    points = [(name, i) for name, vectors in shown.items() for i in range(len(vectors))]
    pd.DataFrame(points, columns=["arm", "candidate"]).to_csv(folder / "points.csv", index=False)
    write_tensors(folder / "distances.safetensors", {"distances": distances(torch.cat(list(shown.values())))})
    spreads = {name: round(spread(vectors), 6) for name, vectors in shown.items() if len(vectors) > 1}
    write_json(folder / "spread.json", spreads)


def write_trajectories(folder: Path, theta: Tensor, trajectories: Tensor) -> None:
    """Write where noises go on their way to LoRAs: trajectories.csv [M] and the distances [M, M] between its points.
    Args: theta: the zoo [N, K]; trajectories: [T, points, K] decoded latents of T noises, the noise first.
    """
    count, points = trajectories.shape[:2]
    rows: list[tuple[str, int, int | None]] = [("checkpoint", i, None) for i in range(len(theta))]
    rows += [("soup", 0, None), *(("condpdiff", i, point) for i in range(count) for point in range(points))]
    table = pd.DataFrame(rows, columns=["arm", "candidate", "point"]).astype({"point": "Int64"})
    table.to_csv(folder / "trajectories.csv", index=False)
    vectors = torch.cat([theta, soup(theta), trajectories.flatten(0, 1)])  # [M, K]
    write_tensors(folder / "trajectories.safetensors", {"distances": distances(vectors)})


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
    Returns: [count, K], and the indices [count] of the checkpoints.
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
