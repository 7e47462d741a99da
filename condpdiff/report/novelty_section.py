"""Where the generated weights lie: spread, distance to the zoo, and t-SNE."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from condpdiff.experiments.params import Params
from condpdiff.report import figures
from condpdiff.report.arms import MADE, OURS
from condpdiff.report.blocks import Block, Figures, Section
from condpdiff.report.compare import number
from condpdiff.report.evaluation import Evaluation, Spec, arm_table
from condpdiff.report.images import Image

HEALTHY = 0.5  # spread of the samples over the zoo's below which they are near copies of one vector
SPREAD = (
    "Spread of an arm's candidates (root mean square distance to their own mean) over that of the zoo. From "
    f"{HEALTHY:g} up it is healthy; below, the candidates are near copies of one vector."
)
DISTANCE = (
    "Median L2 from an arm's candidates to the nearest checkpoint (a checkpoint: to the nearest other one), "
    "and between consecutive checkpoints."
)
NOVELTY = (
    "Distance to the nearest checkpoint against the score ({label}). Dotted: one step of fine-tuning (the median "
    "distance of consecutive checkpoints). Soup and Gaussian also lie away from every checkpoint: distance alone is "
    "not novelty."
)
CORRELATION = " ρ: Spearman's correlation of the two over condpdiff's candidates."
TSNE = (
    "t-SNE of the distances between weight vectors. Consecutive checkpoints are near copies, so they form a thread; "
    "anything off the thread, soup and Gaussian noise included, may form a cluster of its own: a separate cluster is "
    "not novelty. What is seen at one perplexity or seed and not at the others is t-SNE's doing."
)
TRAJECTORIES = (
    "t-SNE of what noises become on the way to a LoRA, decoded at a few denoising steps, among the zoo's checkpoints "
    "and their soup. A line is one noise; its first point is decoded from pure noise. t-SNE shows who is near whom, "
    "not how far."
)


def section(spec: Spec, params: Params, more: Sequence[Block]) -> Section:
    """Tables and figures of every task; `more` are of other measures than distance."""
    evaluations, view = spec.evaluations, (params.report.perplexity, params.report.seed)
    distance = arm_table(spec, DISTANCE, ("original", "soup", *MADE), _distance)
    step = ["one step of fine-tuning", *(number(e.step) for e in evaluations)]
    caption = NOVELTY.format(label=spec.label) + CORRELATION
    blocks: list[Block] = [
        arm_table(spec, SPREAD, MADE, _spread),
        replace(distance, rows=[*distance.rows, step], foot=1),
        Figures(caption, [novelty(e) for e in evaluations]),
        *more,
        Figures(TSNE, [figures.tsne(e, *view) for e in evaluations]),
    ]
    if followed := [e for e in evaluations if (e.ways[0]["arm"] == OURS).any()]:
        blocks.append(Figures(TRAJECTORIES, [figures.trajectories(e, *view) for e in followed]))
    return Section("novelty", "Where the generated weights lie", blocks)


def novelty(e: Evaluation) -> Image:
    """Every candidate's distance against its score."""
    alt = f"{e.name}: distance to the nearest checkpoint against {e.metric}"
    x = e.scores["distance"].to_numpy(dtype=np.float64)
    return figures.against_score(e, x, f"novelty-{e.name}", "L2 to the nearest checkpoint", alt, e.step)


def _spread(e: Evaluation, arm: str) -> str:
    zoo = e.spread.get("checkpoint", 0.0)
    ratio = e.spread.get(arm, math.nan) / zoo if zoo else math.nan
    return number(ratio) + (" (narrow)" if arm == OURS and ratio < HEALTHY else "")


def _distance(e: Evaluation, arm: str) -> str:
    return number(float(np.median(e.values(arm, "distance"))))
