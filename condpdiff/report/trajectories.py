"""Reads where noises go on their way to LoRAs, of text tasks: merge-eval writes it of styles alone."""

from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from condpdiff.common.errors import UserError
from condpdiff.report.readers import open_arrays
from condpdiff.report.tsne import NOISE, Points

COLUMNS = ["arm", "candidate", "point"]
PART = 1 << 16
"""Weights of every vector that are in memory at a time."""


def read_trajectories(samples: Path, zoo: Path, task: str, last: int) -> Points:
    """The last N = `last` checkpoints, their soup, and the decoded latents of J noises at P points; nothing if J is 0.

    Raises:
        UserError: a file is absent or broken, or sizes disagree.
    """
    ours, theirs = samples / f"{task}.safetensors", zoo / task / "theta.safetensors"
    with open_arrays(ours, ["trajectories"]) as (ways,), open_arrays(theirs, ["theta"]) as (theta,):
        count, points, k = ways.get_shape()
        n_max, k_zoo = theta.get_shape()
        if k != k_zoo or n_max < last:
            found = f"{theirs}: theta is [{n_max}, {k_zoo}], needed: [at least {last}, {k}]"
            raise UserError(f"{found}, as the trajectories of {ours} have it")
        if not count:
            return pd.DataFrame(columns=COLUMNS), np.zeros((0, 0), np.float32)
        gram = np.zeros((last + 1 + count * points,) * 2)  # [M, M]
        with threadpool_limits(1):  # sums over threads differ by machine
            for start in range(0, k, PART):
                part = slice(start, min(start + PART, k))
                checkpoints = theta[n_max - last :, part].astype(np.float64)
                soup = checkpoints.mean(axis=0, keepdims=True)
                x = np.concatenate([checkpoints, soup, ways[:, :, part].reshape(count * points, -1)]) - soup
                gram += x @ x.T
    rows: list[tuple[str, int, int]] = [("checkpoint", i, 0) for i in range(last)]
    rows += [("soup", 0, 0), *((NOISE, i, point) for i in range(count) for point in range(points))]
    squares = np.diag(gram)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)).astype(np.float32)
    return pd.DataFrame(rows, columns=COLUMNS), distances
