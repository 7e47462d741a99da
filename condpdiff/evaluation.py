"""merge-eval: score every arm's candidates with one head, one rule, on the same rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor

from condpdiff import controls
from condpdiff.autoencoder import Autoencoder, decode_all, encode_all
from condpdiff.files import write_json, write_tensors
from condpdiff.normalization import normalise
from condpdiff.normalized import Frame
from condpdiff.params.eval import Eval
from condpdiff.text.metrics import constant_prediction
from condpdiff.text.score import Scorer

SOUP_OF = 16


@dataclass(frozen=True)
class Arm:
    """One arm of the comparison."""

    vectors: Tensor
    """[M, K] its candidates."""
    checkpoints: list[int | None]
    """Index in the zoo of each candidate that is, or comes from, one checkpoint."""


def build_arms(
    theta: Tensor, samples: Tensor, frame: Frame, autoencoder: Autoencoder, settings: Eval, generator: Generator
) -> dict[str, Arm]:
    """All arms that are vectors, in the report's order.

    Args:
        theta: the zoo [N, K_all].
        samples: the generated LoRAs [S, K_all].
    """
    many, few = settings.candidates, settings.extra_candidates
    picked = controls.evenly_spaced(len(theta), many)
    rebuilt = controls.evenly_spaced(len(theta), few)
    w = normalise(theta[rebuilt][:, frame.positions], frame.statistics)
    zero = torch.zeros(1, len(frame.positions))

    def arm(vectors: Tensor, checkpoints: Tensor | None = None) -> Arm:
        return Arm(vectors, [None] * len(vectors) if checkpoints is None else checkpoints.tolist())

    return {
        "original": arm(theta[picked], picked),
        "soup": arm(controls.soup(theta)),
        "soup_16": arm(controls.soup_of(theta, SOUP_OF, few, generator)),
        "gaussian": arm(controls.gaussian(theta, many, generator)),
        "pca_gaussian": arm(controls.pca_gaussian(theta, settings.pca_axes, many, generator)),
        "ae_reconstruction": arm(frame.to_theta(decode_all(autoencoder, encode_all(autoencoder, w))), rebuilt),
        "zero_decode": arm(frame.to_theta(zero)),
        "condpdiff": arm(samples),
    }


def score_arms(
    scorer: Scorer, arms: dict[str, Arm], theta: Tensor, train_labels: np.ndarray
) -> tuple[pd.DataFrame, np.ndarray]:
    """Score the constant prediction, no LoRA, and every candidate of every arm.

    Args:
        theta: the zoo [N, K].
        train_labels: of all training rows; the constant comes from them.

    Returns:
        One row a candidate: arm, candidate, checkpoint, select, validation (the task's first metric in percent),
        validation_<metric> for each metric, and distance (L2 to the nearest checkpoint, to the nearest other one
        for checkpoints themselves); and the predictions on validation [rows, V] float32.
    """
    first = scorer.task.metrics[0]
    rows: list[dict[str, object]] = []
    predictions: list[np.ndarray] = []

    def add(arm: str, candidate: int, checkpoint: int | None, found: dict[str, np.ndarray], distance: float) -> None:
        validation = scorer.score("validation", found["validation"])
        row = {"arm": arm, "candidate": candidate, "checkpoint": checkpoint}
        row |= {"select": scorer.score("select", found["select"])[first], "validation": validation[first]}
        row |= {f"validation_{name}": value for name, value in validation.items()}
        rows.append(row | {"distance": distance})
        predictions.append(found["validation"].astype(np.float32))

    constant = constant_prediction(train_labels, scorer.task.data.kind)
    add("majority", 0, None, {k: np.full(len(scorer.labels[k]), constant) for k in scorer.batches}, float("nan"))
    scorer.merge(None)
    add("no_lora", 0, None, {k: scorer.predict(k) for k in scorer.batches}, float("nan"))
    for name, arm in arms.items():
        found = scorer.predict_all(arm.vectors, name)
        for i, checkpoint in enumerate(arm.checkpoints):
            others = theta if name != "original" or len(theta) == 1 else theta[torch.arange(len(theta)) != checkpoint]
            distance = float(torch.linalg.vector_norm(others - arm.vectors[i], dim=1).min())
            add(name, i, checkpoint, {k: found[k][i] for k in found}, distance)
    frame = pd.DataFrame(rows).astype({"checkpoint": "Int64"})
    return frame, np.stack(predictions)


def write_geometry(folder: Path, arms: dict[str, Arm], theta: Tensor) -> None:
    """Write what the figures need of the vectors: `distances.safetensors` [M, M], `points.csv`, `spread.json`."""
    shown = {"checkpoint": theta} | {k: a.vectors for k, a in arms.items() if k not in ("original", "zero_decode")}
    points = [(name, i) for name, vectors in shown.items() for i in range(len(vectors))]
    pd.DataFrame(points, columns=["arm", "candidate"]).to_csv(folder / "points.csv", index=False)
    write_tensors(folder / "distances.safetensors", {"distances": controls.distances(torch.cat(list(shown.values())))})
    many = {name: vectors for name, vectors in shown.items() if len(vectors) > 1}
    write_json(folder / "spread.json", {name: round(controls.spread(vectors), 6) for name, vectors in many.items()})


def winner(scores: pd.DataFrame, arm: str) -> int:
    """Index of the arm's candidate that is best on the select rows; the first of equals."""
    return int(scores.loc[scores["arm"] == arm].reset_index(drop=True)["select"].to_numpy().argmax())
