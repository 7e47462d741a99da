"""Score every arm's candidates with one head, one rule, on the same rows."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from condpdiff.common.files import write_json, write_tensors
from condpdiff.evaluate import controls
from condpdiff.evaluate.arms import Arm, distance_to_zoo, first_best
from condpdiff.evaluate.racing import parts, race
from condpdiff.evaluate.settings import Eval
from condpdiff.text.metrics import constant_prediction
from condpdiff.text.rows import read_rows
from condpdiff.text.score import Scorer
from condpdiff.text.task import Task
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.performance import loss_rows, select_rows
from condpdiff.zoo.settings import Performance

Splits = dict[str, pd.DataFrame]
DOSES = ["arm", "asked", "candidate", "loss", "validation"]


def evaluate(
    task: Task,
    zoo: Zoo,
    arms: dict[str, Arm],
    samples: dict[str, Tensor],
    settings: Eval,
    performance: Performance,
    data: Path,
    base: Path,
    out: Path,
) -> pd.DataFrame:
    """Score everything and write scores.csv, doses.csv, passes.json and predictions.safetensors to the folder `out`.

    Args:
        samples: what `generate` made for the task.
        data: the task's prepared rows.

    Returns:
        The scores, one row a candidate.
    """
    train, held_out, validation = (read_rows(data, name) for name in ("train", "held_out", "validation"))
    scorer = Scorer(base, zoo, task, splits(held_out, validation, settings, performance), settings.batch_tokens)
    scores, predictions = score_arms(scorer, arms, zoo.theta, train["label"].to_numpy(), settings)
    doses = score_doses(scorer, zoo.theta, samples["doses"], samples["asked"], settings)
    scores.to_csv(out / "scores.csv", index=False)
    doses.to_csv(out / "doses.csv", index=False)
    write_json(out / "passes.json", count_passes(scorer, scores, doses, settings))
    found = {"predictions": predictions, "labels": scorer.labels["validation"]}
    tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in found.items()}
    write_tensors(out / "predictions.safetensors", tensors)
    return scores


@dataclass(frozen=True)
class Candidate:
    """What one candidate predicts."""

    rows: int
    """Select rows seen; fewer than all if it dropped out of the race."""
    select: np.ndarray
    """[rows]"""
    validation: np.ndarray | None
    """[V]; None: not scored there."""


def splits(held_out: pd.DataFrame, validation: pd.DataFrame, settings: Eval, performance: Performance) -> Splits:
    """The rows that candidates are scored on: `select`, `validation`, `loss` (doses), and for racing parts of select.

    Args:
        held_out: a task's held-out rows, in random order.
    """
    select, loss = select_rows(held_out, performance, settings.select_rows), loss_rows(held_out, performance)
    raced = parts("select", select) if settings.select == "racing" else {}
    return {"select": select, "validation": validation, "loss": loss, **raced}


def score_arms(
    scorer: Scorer, arms: dict[str, Arm], theta: Tensor, train_labels: np.ndarray, settings: Eval
) -> tuple[pd.DataFrame, np.ndarray]:
    """Score the constant prediction, no LoRA, and every candidate of every arm.

    Args:
        theta: the zoo [N, K].
        train_labels: of all training rows; the constant comes from them.

    Returns:
        One row a candidate: arm, candidate, checkpoint, rows (select rows seen), select, validation (the task's first
        metric in percent), validation_<metric> for each metric, and distance (L2 to the nearest checkpoint, to the
        nearest other one for checkpoints themselves); and the predictions on validation [rows, V] float32. NaN is the
        select score of who dropped out of a race, and all of validation for who did not win it.
    """
    rows: list[dict[str, object]] = []
    predictions: list[np.ndarray] = []

    def add(arm: str, candidate: int, checkpoint: int | None, found: Candidate, distance: float) -> None:
        row: dict[str, object] = {"arm": arm, "candidate": candidate, "checkpoint": checkpoint}
        rows.append(row | _scores(scorer, found) | {"distance": distance})
        unscored = np.full(len(scorer.labels["validation"]), np.nan)
        predictions.append((unscored if found.validation is None else found.validation).astype(np.float32))

    constant = constant_prediction(train_labels, scorer.task.data.kind)
    select, validation = (np.full(len(scorer.labels[k]), constant) for k in ("select", "validation"))
    add("majority", 0, None, Candidate(len(select), select, validation), float("nan"))
    scorer.merge(None)
    select, validation = (scorer.predict(k) for k in ("select", "validation"))
    add("no_lora", 0, None, Candidate(len(select), select, validation), float("nan"))
    for name, arm in arms.items():
        found = run_arm(scorer, name, arm.vectors, settings)
        for i, (candidate, checkpoint) in enumerate(zip(found, arm.checkpoints, strict=True)):
            itself = checkpoint if name == "original" else None
            add(name, i, checkpoint, candidate, distance_to_zoo(arm.vectors[i], theta, itself))
    frame = pd.DataFrame(rows).astype({"checkpoint": "Int64"})
    return frame, np.stack(predictions)


def run_arm(scorer: Scorer, name: str, vectors: Tensor, settings: Eval) -> list[Candidate]:
    """Every candidate on all rows, or a race on the select rows whose winner alone is scored on validation."""
    if settings.select == "full":
        found = scorer.predict_all(vectors, name, ("select", "validation"))
        pairs = zip(found["select"], found["validation"], strict=True)
        return [Candidate(len(select), select, validation) for select, validation in pairs]
    runners = race(scorer, vectors, "select", settings.race_z, name)
    candidates = [Candidate(runner.rows, runner.predictions, None) for runner in runners]
    best = first_best(np.array([_scores(scorer, c)["select"] for c in candidates]))
    scorer.merge(vectors[best])
    candidates[best] = replace(candidates[best], validation=scorer.predict("validation"))
    return candidates


def _scores(scorer: Scorer, found: Candidate) -> dict[str, object]:
    """A candidate's columns rows, select, validation and validation_<metric>."""
    first, nan = scorer.task.metrics[0], float("nan")
    dropped = found.rows < len(scorer.labels["select"])
    row: dict[str, object] = {"rows": found.rows}
    row["select"] = nan if dropped else scorer.score("select", found.select)[first]
    validation: dict[str, float] = dict.fromkeys(scorer.task.metrics, nan)
    if found.validation is not None:
        validation = scorer.score("validation", found.validation)
    return row | {"validation": validation[first]} | {f"validation_{k}": v for k, v in validation.items()}


def score_doses(scorer: Scorer, theta: Tensor, doses: Tensor, asked: Tensor, settings: Eval) -> pd.DataFrame:
    """The dose-response curve: what asking for a performance brings.

    Args:
        theta: the zoo [N, K].
        doses: [D, n, K], n LoRAs sampled at each of the performances `asked` [D].

    Returns:
        The soup (asked: NaN), then each dose's candidates: arm, asked, candidate, loss (mean over the rows of split
        `loss`), validation (first metric in percent; NaN in racing). No row if there are no doses.
    """
    at = [(round(float(p), 6), i) for p in asked for i in range(doses.shape[1])]  # float32 0.1 is no 0.1
    if not at:
        return pd.DataFrame(columns=DOSES)
    names = [("soup", float("nan"), 0), *(("condpdiff", *pair) for pair in at)]
    rows = []
    for name, vector in zip(names, tqdm([controls.soup(theta)[0], *doses.flatten(0, 1)], desc="doses"), strict=True):
        scorer.merge(vector)
        rows.append((*name, float(scorer.losses("loss").mean()), _dose_validation(scorer, settings)))
    return pd.DataFrame(rows, columns=DOSES)


def _dose_validation(scorer: Scorer, settings: Eval) -> float:
    if settings.select == "racing":
        return float("nan")
    return scorer.score("validation", scorer.predict("validation"))[scorer.task.metrics[0]]


def count_passes(scorer: Scorer, scores: pd.DataFrame, doses: pd.DataFrame, settings: Eval) -> dict[str, Any]:
    """Rows that went through the model, by split, and how many `eval.select: full` would have sent through it."""
    done: dict[str, int] = dict.fromkeys(("select", "validation", "loss"), 0)
    for name, count in scorer.passes.items():
        done[name.partition(" ")[0]] += count  # parts of select are `select 0:12`
    models = int((scores["arm"] != "majority").sum())
    rows = {split: len(scorer.labels[split]) for split in done}
    full = {"select": models * rows["select"], "validation": (models + len(doses)) * rows["validation"]}
    full["loss"] = len(doses) * rows["loss"]
    return {"select": settings.select, "rows": {k: {"done": done[k], "full": full[k]} for k in done}}
