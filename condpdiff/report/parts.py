"""Tables and figures of the report that every domain has."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd

from condpdiff.report import figures, text
from condpdiff.report.blocks import Block, Figures, Table
from condpdiff.report.tables import Scored, Summary, candidates, column, consecutive_distance
from condpdiff.report.tsne import Points, trajectories

MANY = ("soup_16", "gaussian", "pca_gaussian", "checkpoint_noise", "ae_reconstruction", "condpdiff")
"""Arms of several candidates that are no checkpoints."""
E = TypeVar("E", bound=Scored)


def number(value: float, decimals: int = 2) -> str:
    """A dash for what is not known."""
    return "–" if math.isnan(value) else f"{value:.{decimals}f}"


def accent(rows: list[list[str]]) -> frozenset[int]:
    """The rows of our method."""
    return frozenset(i for i, row in enumerate(rows) if row[0] == "condpdiff")


def columns_of(evaluations: Sequence[Scored]) -> list[str]:
    """Keys of a pivot's row that a table shows: a single task needs no average."""
    return [*(e.name for e in evaluations), *(["average"] if len(evaluations) > 1 else [])]


def noun_of(evaluations: Sequence[Scored]) -> str:
    """What is generated for, in a sentence: of styles alone lower is better."""
    return "style" if evaluations[0].lower else "task"


def label_of(evaluations: Sequence[Scored]) -> str:
    """What is scored; tasks of different metrics have percent in common."""
    labels = {e.label for e in evaluations}
    return labels.pop() if len(labels) == 1 else "first metric on validation, %"


def floors_of(evaluations: Sequence[Scored]) -> dict[str, float]:
    """Style -> the finite-sample floor of its distance; the scores of text tasks have none."""
    return {e.name: e.picked("floor") for e in evaluations if e.lower}


def arm_table(evaluations: Sequence[E], caption: str, arms: Sequence[str], cell: Callable[[E, str], str]) -> Table:
    """Arms x tasks."""
    rows = [[arm, *(cell(e, arm) for e in evaluations)] for arm in arms]
    return Table(caption, ["arm", *(e.name for e in evaluations)], rows, accent=accent(rows))


def candidates_table(evaluations: Sequence[Scored], summary: Summary, caption: str) -> Table:
    """Mean ± standard deviation (best) of each arm's candidates."""
    cells = {(s.task, s.arm): s for s in summary}
    rows = []
    for arm in dict.fromkeys(s.arm for s in summary):
        row = [arm, str(max(cells[e.name, arm].candidates for e in evaluations if (e.name, arm) in cells))]
        for e in evaluations:
            r, d = cells.get((e.name, arm)), e.decimals
            row.append("–" if r is None else f"{r.mean:.{d}f}" if r.candidates == 1 else
                       f"{r.mean:.{d}f} ± {r.std:.{d}f} ({r.best:.{d}f})")  # fmt: skip
        rows.append(row)
    return Table(caption, ["arm", "candidates", *(e.name for e in evaluations)], rows, accent=accent(rows))


def spread_table(evaluations: Sequence[Scored]) -> Table:
    """Spread of each arm's candidates over the zoo's."""
    return arm_table(evaluations, text.SPREAD, MANY, _spread)


def distance_table(evaluations: Sequence[Scored]) -> Table:
    """Distance to the nearest checkpoint, and one step of fine-tuning as its yardstick."""
    table = arm_table(evaluations, text.DISTANCE, ("original", "soup", *MANY), _distance)
    step = ["one step of fine-tuning", *(number(consecutive_distance(e)) for e in evaluations)]
    return replace(table, rows=[*table.rows, step], foot=1)


def followed(ways: dict[str, Points], perplexity: float, seed: int) -> list[Block]:
    """Noises on their way to LoRAs, a figure a task; nothing where none was followed."""
    images = [trajectories(name, found, perplexity, seed) for name, found in ways.items()]
    return [Figures(text.TRAJECTORIES, images)] if images else []


def _spread(e: Scored, arm: str) -> str:
    zoo = e.spread.get("checkpoint", 0.0)
    ratio = e.spread.get(arm, float("nan")) / zoo if zoo else float("nan")
    return number(ratio) + (" (narrow)" if arm == "condpdiff" and ratio < text.HEALTHY else "")


def _distance(e: Scored, arm: str) -> str:
    return number(float(np.median(column(e.scores, candidates(e.scores, arm), "distance"))))


def training(
    finetune: Figures, autoencoder: tuple[pd.DataFrame, list[str]], ldm: tuple[pd.DataFrame, list[str]]
) -> list[Block]:
    """Fine-tuning, then the generator's two networks."""
    networks = [
        figures.curve(frame, ys, name, title)
        for name, title, (frame, ys) in (
            ("autoencoder", "Autoencoder", autoencoder),
            ("ldm", "Latent diffusion model", ldm),
        )
        if len(frame) > 1  # a PCA is not trained
    ]
    return [finetune, *([Figures(text.NETWORKS, networks)] if networks else [])]
