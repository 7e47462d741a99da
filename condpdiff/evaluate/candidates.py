"""Score every arm's candidates by one rule, on the same rows: the loop of merge-eval.

Candidates are selected on held-out rows, where higher is better; the figure that counts is the validation score.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm import tqdm

from condpdiff.autoencoder import models as autoencoder
from condpdiff.common.files import read_rows, read_tensors
from condpdiff.common.task import Task
from condpdiff.evaluate.arms import (
    Arm,
    build_arms,
    distance_to_zoo,
    first_best,
    soup,
    write_geometry,
    write_trajectories,
)
from condpdiff.evaluate.settings import Eval
from condpdiff.zoo.checkpoints import Zoo, digest, load_zoo
from condpdiff.zoo.normalized import load_frame
from condpdiff.zoo.performance import loss_rows, select_rows
from condpdiff.zoo.settings import Performance

if TYPE_CHECKING:  # the domain's own
    from condpdiff.text.score import Scorer

REFERENCE = "majority"  # the arm of what needs no model, in scores.csv before all others
NAN = float("nan")
DOSES = ["arm", "asked", "candidate", "loss", "validation"]


class Scored(NamedTuple):
    """What was found of one candidate."""

    select: float  # its first metric on the select rows, higher is better; NaN where that is no number
    validation: Mapping[str, float]  # the task's metrics; all NaN where `select` is
    made: np.ndarray  # what it made of the validation rows, as `Scorer.validate` gives it


def splits(data: Path, settings: Eval, performance: Performance) -> dict[str, pd.DataFrame]:
    """The rows that candidates are scored on: `select`, `validation`, and `loss` (doses).
    Args: data: a task's prepared rows; the held-out ones lie in random order.
    """
    held_out = read_rows(data, "held_out")
    select, loss = select_rows(held_out, performance, settings.select_rows), loss_rows(held_out, performance)
    return {"select": select, "validation": read_rows(data, "validation"), "loss": loss}


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
    Args: data: where the stages before wrote; scorer: the domain's; checkpoints: N.
    Raises UserError: a file can't be read.
    """
    zoo, rows = load_zoo(data / "zoo" / name, checkpoints), data / "tasks" / name
    samples, frame = read_tensors(data / "samples" / f"{name}.safetensors"), load_frame(data / "normalized", name)
    decoder = autoencoder.load(data / "autoencoder" / autoencoder.FILE)
    arms = build_arms(zoo.theta, samples["theta"], frame, decoder, settings)
    of_task = scorer(data / "base", zoo, task, splits(rows, settings, performance), settings.batch_tokens)
    scores = Run(of_task, zoo.theta, read_rows(rows, "train")).evaluate(arms, samples, out)
    write_geometry(out, arms, zoo.theta)
    return samples["theta"][first_best(scores.loc[scores["arm"] == "condpdiff", "select"])], zoo


class Run:
    """Scores candidates of one task; what was scored once costs nothing when it comes again.

    Under task normalisation zero_decode is the soup, and so is the first of the doses.
    """

    def __init__(self, scorer: "Scorer", theta: Tensor, train: pd.DataFrame) -> None:
        """Args: scorer: of the task's `splits`; theta: the zoo [N, K]; train: the task's training rows."""
        self.scorer, self.theta, self.train = scorer, theta, train
        self.known: dict[str, Scored] = {}  # by the digest of theta

    def evaluate(self, arms: Mapping[str, Arm], samples: Mapping[str, Tensor], out: Path) -> pd.DataFrame:
        """Score everything; write scores.csv, doses.csv, trajectories and the domain's own to `out`.
        Args: samples: what `generate` made for the task.
        Returns: The scores, one row a candidate.
        """
        scores, made = self.score_arms(arms)
        scores.to_csv(out / "scores.csv", index=False)
        self.score_doses(samples["doses"], samples["asked"]).to_csv(out / "doses.csv", index=False)
        self.scorer.write(out, made)
        write_trajectories(out, self.theta, samples["trajectories"])
        return scores

    def score_arms(self, arms: Mapping[str, Arm]) -> tuple[pd.DataFrame, list[np.ndarray]]:
        """Score what needs no LoRA, no LoRA, and every candidate of every arm.

        Returns:
            scores.csv: arm, candidate, checkpoint, rows (of select), select, validation (the task's first metric),
            validation_<metric> for each metric, distance (L2 to the nearest checkpoint, to the nearest other one for
            checkpoints themselves); and what each of its rows made of the validation rows.
        """
        lines: list[dict[str, object]] = []
        made: list[np.ndarray] = []

        def add(arm: str, found: Scored, number: int = 0, checkpoint: int | None = None, distance: float = NAN) -> None:
            line: dict[str, object] = {"arm": arm, "candidate": number, "checkpoint": checkpoint}
            line |= {"rows": self.scorer.rows["select"], "select": found.select, "validation": first(found.validation)}
            line |= {f"validation_{metric}": value for metric, value in found.validation.items()}
            lines.append(line | {"distance": distance})
            made.append(found.made)

        select, validation = self.scorer.constant(self.train)
        found = first(self.scorer.score("select", select)), self.scorer.score("validation", validation)
        add(REFERENCE, Scored(*found, validation))
        add("no_lora", self.score(None))
        for name, (vectors, checkpoints) in arms.items():
            candidates = zip(checkpoints, tqdm(vectors, desc=name, unit="candidate", leave=False), strict=True)
            for i, (checkpoint, vector) in enumerate(candidates):
                distance = distance_to_zoo(vector, self.theta, checkpoint if name == "original" else None)
                add(name, self.score(vector), i, checkpoint, distance)
        return pd.DataFrame(lines).astype({"checkpoint": "Int64"}), made

    def score(self, theta: Tensor | None) -> Scored:
        """One candidate [K] on all select and validation rows; None: no LoRA."""
        key = digest(theta)
        if key not in self.known:
            self.scorer.merge(theta)
            select = first(self.scorer.score("select", self.scorer.predict("select")))
            metrics, made = self.scorer.validate()
            self.known[key] = Scored(select, dict.fromkeys(metrics, NAN) if np.isnan(select) else metrics, made)
        return self.known[key]

    def score_doses(self, doses: Tensor, asked: Tensor) -> pd.DataFrame:
        """The dose-response curve: what asking for a performance brings.
        Args: doses: [D, n, K], n LoRAs sampled at each of the performances `asked` [D].

        Returns:
            The soup (asked: NaN), then each dose's candidates: arm, asked, candidate, loss (mean over the rows of
            split `loss`), validation (first metric). No row if there are no doses.
        """
        at = [(round(float(p), 6), i) for p in asked for i in range(doses.shape[1])]  # float32 0.1 is no 0.1
        if not at:
            return pd.DataFrame(columns=DOSES)
        names = [("soup", NAN, 0), *(("condpdiff", *pair) for pair in at)]
        vectors = [soup(self.theta)[0], *doses.flatten(0, 1)]
        rows = []
        for name, vector in zip(names, tqdm(vectors, desc="doses", unit="candidate", leave=False), strict=True):
            self.scorer.merge(vector)
            loss, known = float(self.scorer.losses("loss").mean()), self.known.get(digest(vector))
            rows.append((*name, loss, first(known.validation if known else self.scorer.validate()[0])))
        return pd.DataFrame(rows, columns=DOSES)


def first(metrics: Mapping[str, float]) -> float:
    """The metric that counts."""
    return next(iter(metrics.values()))
