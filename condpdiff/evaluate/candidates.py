"""Score every arm's candidates by one rule, on the same rows: the loop of merge-eval.

Candidates are selected on held-out rows, where higher is better; the figure that counts is the validation score.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm import tqdm

from condpdiff.autoencoder import models as autoencoder
from condpdiff.common.files import read_rows, read_tensors, write_json
from condpdiff.common.task import Task
from condpdiff.evaluate import controls
from condpdiff.evaluate.arms import Arm, build_arms, distance_to_zoo, first_best, write_geometry, write_trajectories
from condpdiff.evaluate.racing import parts, race
from condpdiff.evaluate.settings import Eval
from condpdiff.zoo.checkpoints import Zoo, load_zoo
from condpdiff.zoo.layout import digest
from condpdiff.zoo.normalized import load_frame
from condpdiff.zoo.performance import loss_rows, select_rows
from condpdiff.zoo.settings import Performance

if TYPE_CHECKING:  # the domain's own
    from condpdiff.text.score import Scorer

REFERENCE = "majority"  # the arm of what needs no model, in scores.csv before all others
NAN = float("nan")
DOSES = ["arm", "asked", "candidate", "loss", "validation"]


@dataclass(frozen=True)
class Candidate:
    """What was found of one candidate: a row of scores.csv."""

    rows: int  # select rows seen; fewer than all if it dropped out of a race
    select: float  # its score on them, higher is better; NaN if it dropped out, or its score is no number
    validation: Mapping[str, float] = field(default_factory=dict)
    """The task's metrics; empty: it did not win the race, and was not scored there."""
    made: np.ndarray | None = None  # what it made of the validation rows, as `Scorer.validate` gives it
    arm: str = ""
    number: int = 0  # of the candidate in its arm
    checkpoint: int | None = None  # index in the zoo of a candidate that is, or comes from, one checkpoint
    distance: float = NAN  # L2 to the nearest checkpoint, to the nearest other one for checkpoints themselves


def splits(data: Path, settings: Eval, performance: Performance) -> dict[str, pd.DataFrame]:
    """The rows that candidates are scored on: `select`, `validation`, `loss` (doses), and for racing parts of select.

    Args:
        data: a task's prepared rows; the held-out ones lie in random order.
    """
    held_out = read_rows(data, "held_out")
    select, loss = select_rows(held_out, performance, settings.select_rows), loss_rows(held_out, performance)
    raced = parts("select", select) if settings.select == "racing" else {}
    return {"select": select, "validation": read_rows(data, "validation"), "loss": loss, **raced}


def evaluate_task(
    data: Path,
    name: str,
    task: Task,
    scorer: Callable[..., "Scorer"],
    checkpoints: int,
    settings: Eval,
    performance: Performance,
    out: Path,
) -> tuple[Tensor, Zoo]:
    """All arms of one task, evaluated into the folder `out`; gives condpdiff's selected candidate [K] and the zoo.

    Args:
        data: where the stages before wrote.
        scorer: the domain's.
        checkpoints: N.
    Raises UserError: a file can't be read.
    """
    zoo, rows = load_zoo(data / "zoo" / name, checkpoints), data / "tasks" / name
    samples, frame = read_tensors(data / "samples" / f"{name}.safetensors"), load_frame(data / "normalized", name)
    decoder = autoencoder.load(data / "autoencoder" / autoencoder.FILE)
    arms = build_arms(zoo.theta, samples["theta"], frame, decoder, settings)
    of_task = scorer(data / "base", zoo, task, splits(rows, settings, performance), settings.batch_tokens)
    scores = Run(of_task, settings, zoo.theta, read_rows(rows, "train")).evaluate(arms, samples, out)
    write_geometry(out, arms, zoo.theta)
    return samples["theta"][first_best(scores.loc[scores["arm"] == "condpdiff", "select"])], zoo


class Run:
    """Scores candidates of one task; what was scored on all rows once costs nothing when it comes again.

    Under task normalisation zero_decode is the soup, and so is the first of the doses.
    """

    def __init__(self, scorer: "Scorer", settings: Eval, theta: Tensor, train: pd.DataFrame) -> None:
        """Args: scorer: of the task's `splits`; theta: the zoo [N, K]; train: the task's training rows."""
        self.scorer, self.settings, self.theta, self.train = scorer, settings, theta, train
        self.racing = settings.select == "racing"
        self.known: dict[str, Candidate] = {}  # who was scored on all rows, by the digest of theta

    def evaluate(self, arms: Mapping[str, Arm], samples: Mapping[str, Tensor], out: Path) -> pd.DataFrame:
        """Score everything; write scores.csv, doses.csv, passes.json, trajectories and the domain's own to `out`.

        Args:
            samples: what `generate` made for the task.

        Returns:
            The scores, one row a candidate.
        """
        rows = self.score_arms(arms)
        scores, doses = table(rows, self.scorer.metrics), self.score_doses(samples["doses"], samples["asked"])
        scores.to_csv(out / "scores.csv", index=False)
        doses.to_csv(out / "doses.csv", index=False)
        write_json(out / "passes.json", count_passes(self.scorer, scores, doses, self.settings.select))
        self.scorer.write(out, [row.made for row in rows])
        write_trajectories(out, self.theta, samples["trajectories"])
        return scores

    def score_arms(self, arms: Mapping[str, Arm]) -> list[Candidate]:
        """Score what needs no LoRA, no LoRA, and every candidate of every arm."""
        select, made = self.scorer.constant(self.train)
        found = self.scorer.score("select", select), self.scorer.score("validation", made)
        rows = [Candidate(len(select), first(found[0]), found[1], made, REFERENCE)]
        rows.append(replace(self.score(None), arm="no_lora"))
        for name, (vectors, checkpoints) in arms.items():
            scored = zip(self.score_arm(name, vectors), checkpoints, vectors, strict=True)
            for i, (candidate, checkpoint, vector) in enumerate(scored):
                distance = distance_to_zoo(vector, self.theta, checkpoint if name == "original" else None)
                rows.append(replace(candidate, arm=name, number=i, checkpoint=checkpoint, distance=distance))
        return rows

    def score_arm(self, name: str, vectors: Tensor) -> list[Candidate]:
        """Every candidate on all rows, or a race on the select rows whose winner alone is scored on validation."""
        if not self.racing or len(vectors) == 1:
            return [self.score(vector) for vector in tqdm(vectors, desc=name, unit="candidate", leave=False)]
        seen, every = race(self.scorer, vectors, "select", self.settings.race_z, name), self.scorer.rows["select"]
        select = [self.scorer.select_score(outputs) if len(outputs) == every else NAN for outputs in seen]
        candidates = [Candidate(len(outputs), score) for outputs, score in zip(seen, select, strict=True)]
        best = first_best(select)
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

    def score_doses(self, doses: Tensor, asked: Tensor) -> pd.DataFrame:
        """The dose-response curve: what asking for a performance brings.

        Args:
            doses: [D, n, K], n LoRAs sampled at each of the performances `asked` [D].

        Returns:
            The soup (asked: NaN), then each dose's candidates: arm, asked, candidate, loss (mean over the rows of
            split `loss`), validation (first metric; NaN in racing). No row if there are no doses.
        """
        at = [(round(float(p), 6), i) for p in asked for i in range(doses.shape[1])]  # float32 0.1 is no 0.1
        if not at:
            return pd.DataFrame(columns=DOSES)
        names = [("soup", NAN, 0), *(("condpdiff", *pair) for pair in at)]
        vectors = [controls.soup(self.theta)[0], *doses.flatten(0, 1)]
        rows = []
        for name, vector in zip(names, tqdm(vectors, desc="doses", unit="candidate", leave=False), strict=True):
            self.scorer.merge(vector)
            loss, validation = float(self.scorer.losses("loss").mean()), NAN
            if not self.racing:
                known = self.known.get(digest(vector))
                validation = first(known.validation if known else self.scorer.validate()[0])
            rows.append((*name, loss, validation))
        return pd.DataFrame(rows, columns=DOSES)


def table(rows: list[Candidate], metrics: list[str]) -> pd.DataFrame:
    """scores.csv: arm, candidate, checkpoint, rows, select, validation (the task's first metric), validation_<metric>
    for each metric, distance; as `Candidate` has them, NaN for what is not known."""
    lines = []
    for row in rows:
        found = {metric: row.validation.get(metric, NAN) for metric in metrics}
        line: dict[str, object] = {"arm": row.arm, "candidate": row.number, "checkpoint": row.checkpoint}
        line |= {"rows": row.rows, "select": row.select, "validation": first(found)}
        lines.append(line | {f"validation_{k}": v for k, v in found.items()} | {"distance": row.distance})
    return pd.DataFrame(lines).astype({"checkpoint": "Int64"})


def count_passes(scorer: "Scorer", scores: pd.DataFrame, doses: pd.DataFrame, select: str) -> dict[str, Any]:
    """Rows that went through the model, by split, and how many it would have been of all rows of the tables."""
    done: dict[str, int] = dict.fromkeys(("select", "validation", "loss"), 0)
    for name, count in scorer.passes.items():
        done[name.partition(" ")[0]] += count  # parts of select are `select 0:12`
    models = int((scores["arm"] != REFERENCE).sum())
    models_of = {"select": models, "validation": models + len(doses), "loss": len(doses)}
    rows = {split: {"done": done[split], "full": count * scorer.rows[split]} for split, count in models_of.items()}
    return {"select": select, "rows": rows}


def first(metrics: Mapping[str, float]) -> float:
    """The metric that counts."""
    return next(iter(metrics.values()))
