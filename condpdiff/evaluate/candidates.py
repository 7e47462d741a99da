"""Score every arm's candidates by one rule, on the same rows: the loop of merge-eval.

Candidates are selected on held-out rows, where higher is better; the figure that counts is the validation score.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm import tqdm

from condpdiff.common.files import read_rows, read_tensors, write_json
from condpdiff.common.task import Task
from condpdiff.evaluate import controls
from condpdiff.evaluate.arms import Arm, distance_to_zoo, load_arms, winner, write_geometry, write_trajectories
from condpdiff.evaluate.racing import parts, race
from condpdiff.evaluate.scorer import Candidate, Row, Scorer, digest, first, first_best
from condpdiff.evaluate.settings import Eval
from condpdiff.zoo.checkpoints import Zoo, load_zoo
from condpdiff.zoo.performance import loss_rows, select_rows
from condpdiff.zoo.settings import Performance

DOSES = ["arm", "asked", "candidate", "loss", "validation"]
NAN = float("nan")


def splits(data: Path, settings: Eval, performance: Performance) -> dict[str, pd.DataFrame]:
    """The rows that candidates are scored on: `select`, `validation`, `loss` (doses), and for racing parts of select.

    Args:
        data: a task's prepared rows; the held-out ones lie in random order.

    Raises:
        UserError: a file can't be read.
    """
    held_out = read_rows(data, "held_out")
    select, loss = select_rows(held_out, performance, settings.select_rows), loss_rows(held_out, performance)
    raced = parts("select", select) if settings.select == "racing" else {}
    return {"select": select, "validation": read_rows(data, "validation"), "loss": loss, **raced}


def evaluate_task(
    data: Path,
    name: str,
    task: Task,
    scorer: Callable[..., Scorer],
    checkpoints: int,
    settings: Eval,
    performance: Performance,
    out: Path,
) -> tuple[Tensor, Zoo]:
    """All arms of one task, `evaluate`d into the folder `out`; gives condpdiff's selected candidate [K] and the zoo.

    Args:
        data: where the stages before wrote.
        scorer: the domain's.
        checkpoints: N.
    """
    zoo, rows = load_zoo(data / "zoo" / name, checkpoints), data / "tasks" / name
    samples = read_tensors(data / "samples" / f"{name}.safetensors")
    arms = load_arms(data, name, zoo, samples["theta"], settings)
    scores = evaluate(
        scorer(data / "base", zoo, task, splits(rows, settings, performance), settings.batch_tokens),
        arms,
        zoo.theta,
        samples,
        read_rows(rows, "train"),
        settings,
        out,
    )
    write_geometry(out, arms, zoo.theta)
    return samples["theta"][winner(scores, "condpdiff")], zoo


def evaluate(
    scorer: Scorer,
    arms: Mapping[str, Arm],
    theta: Tensor,
    samples: Mapping[str, Tensor],
    train: pd.DataFrame,
    settings: Eval,
    out: Path,
) -> pd.DataFrame:
    """Score everything and write the results to the folder `out`.

    scores.csv, doses.csv, passes.json, trajectories.csv, trajectories.safetensors, and what the domain keeps of its
    candidates.

    Args:
        scorer: of the task's `splits`.
        theta: the zoo [N, K].
        samples: what `generate` made for the task.
        train: the task's training rows.

    Returns:
        The scores, one row a candidate.
    """
    run = Run(scorer, settings)
    rows = run.score_arms(arms, theta, train)
    scores = table(rows, scorer.metrics)
    doses = run.score_doses(theta, samples["doses"], samples["asked"])
    scores.to_csv(out / "scores.csv", index=False)
    doses.to_csv(out / "doses.csv", index=False)
    write_json(out / "passes.json", count_passes(scorer, scores, doses, settings))
    scorer.write(out, rows)
    write_trajectories(out, theta, samples["trajectories"])
    return scores


def table(rows: list[Row], metrics: list[str]) -> pd.DataFrame:
    """One row a candidate: arm, candidate, checkpoint, rows (select rows seen), select (higher is better), validation
    (the task's first metric), validation_<metric> for each metric, and distance (L2 to the nearest checkpoint, to the
    nearest other one for checkpoints themselves).

    NaN is the select score of who dropped out of a race and of references that have none, and all of validation for
    who did not win a race.
    """
    lines = []
    for row in rows:
        found = {metric: row.found.validation.get(metric, NAN) for metric in metrics}
        line: dict[str, object] = {"arm": row.arm, "candidate": row.number, "checkpoint": row.checkpoint}
        line |= {"rows": row.found.rows, "select": row.found.select, "validation": first(found)}
        lines.append(line | {f"validation_{k}": v for k, v in found.items()} | {"distance": row.distance})
    return pd.DataFrame(lines).astype({"checkpoint": "Int64"})


class Run:
    """Scores candidates of one task; what was scored on all rows once costs nothing when it comes again.

    Under task normalisation zero_decode is the soup, and so is the first of the doses.
    """

    def __init__(self, scorer: Scorer, settings: Eval) -> None:
        self.scorer, self.settings = scorer, settings
        self.known: dict[str, Candidate] = {}
        """Who was scored on all rows, by the digest of theta."""

    def score_arms(self, arms: Mapping[str, Arm], theta: Tensor, train: pd.DataFrame) -> list[Row]:
        """Score what needs no LoRA, no LoRA, and every candidate of every arm.

        Args:
            theta: the zoo [N, K].
            train: the task's training rows.
        """
        scorer = self.scorer
        rows = [Row(scorer.reference, i, found) for i, found in enumerate(scorer.references(train))]
        rows.append(Row("no_lora", 0, self.score(None)))
        for name, arm in arms.items():
            found = zip(self.score_arm(name, arm.vectors), arm.checkpoints, arm.vectors, strict=True)
            for i, (candidate, checkpoint, vector) in enumerate(found):
                itself = checkpoint if name == "original" else None
                rows.append(Row(name, i, candidate, checkpoint, distance_to_zoo(vector, theta, itself)))
        return rows

    def score_arm(self, name: str, vectors: Tensor) -> list[Candidate]:
        """Every candidate on all rows, or a race on the select rows whose winner alone is scored on validation."""
        if self.settings.select == "full" or len(vectors) == 1:
            return [self.score(vector) for vector in tqdm(vectors, desc=name, unit="candidate", leave=False)]
        seen = race(self.scorer, vectors, "select", self.settings.race_z, name)
        every = self.scorer.rows["select"]
        select = [self.scorer.select_score(outputs) if len(outputs) == every else NAN for outputs in seen]
        candidates = [Candidate(len(outputs), score) for outputs, score in zip(seen, select, strict=True)]
        best = first_best(np.array(select))
        self.scorer.merge(vectors[best])
        candidates[best] = self._validated(candidates[best])
        return candidates

    def score(self, theta: Tensor | None) -> Candidate:
        """One candidate [K] on all select and validation rows; None: no LoRA."""
        key = digest(theta)
        if key not in self.known:
            self.scorer.merge(theta)
            outputs = self.scorer.outputs("select")
            self.known[key] = self._validated(Candidate(len(outputs), self.scorer.select_score(outputs)))
        return self.known[key]

    def _validated(self, found: Candidate) -> Candidate:
        """The candidate, which is merged, with its validation scores; none of one whose select score is no number."""
        metrics, made = self.scorer.validate()
        return replace(found, validation=dict.fromkeys(metrics, NAN) if np.isnan(found.select) else metrics, made=made)

    def score_doses(self, theta: Tensor, doses: Tensor, asked: Tensor) -> pd.DataFrame:
        """The dose-response curve: what asking for a performance brings.

        Args:
            theta: the zoo [N, K].
            doses: [D, n, K], n LoRAs sampled at each of the performances `asked` [D].

        Returns:
            The soup (asked: NaN), then each dose's candidates: arm, asked, candidate, loss (mean over the rows of
            split `loss`), validation (first metric; NaN in racing). No row if there are no doses.
        """
        at = [(round(float(p), 6), i) for p in asked for i in range(doses.shape[1])]  # float32 0.1 is no 0.1
        if not at:
            return pd.DataFrame(columns=DOSES)
        names = [("soup", NAN, 0), *(("condpdiff", *pair) for pair in at)]
        vectors = [controls.soup(theta)[0], *doses.flatten(0, 1)]
        rows = []
        for name, vector in zip(names, tqdm(vectors, desc="doses", unit="candidate", leave=False), strict=True):
            self.scorer.merge(vector)
            rows.append((*name, float(self.scorer.losses("loss").mean()), self._dose_validation(vector)))
        return pd.DataFrame(rows, columns=DOSES)

    def _dose_validation(self, vector: Tensor) -> float:
        """Of the dose that is merged."""
        if self.settings.select == "racing":
            return NAN
        known = self.known.get(digest(vector))
        return first(known.validation if known else self.scorer.validate()[0])


def count_passes(scorer: Scorer, scores: pd.DataFrame, doses: pd.DataFrame, settings: Eval) -> dict[str, Any]:
    """Rows that went through the model, by split, and how many it would have been of all rows of the tables."""
    done: dict[str, int] = dict.fromkeys(("select", "validation", "loss"), 0)
    for name, count in scorer.passes.items():
        done[name.partition(" ")[0]] += count  # parts of select are `select 0:12`
    models = int((scores["arm"] != scorer.reference).sum())
    models_of = {"select": models, "validation": models + len(doses), "loss": len(doses)}
    full = {split: count * scorer.rows[split] for split, count in models_of.items()}
    return {"select": settings.select, "rows": {k: {"done": done[k], "full": full[k]} for k in done}}
