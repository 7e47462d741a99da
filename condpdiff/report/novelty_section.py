"""Where the generated weights lie: spread, distance to the zoo, and t-SNE, which is of distances alone."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from condpdiff.experiments.params import Params
from condpdiff.report.arms import BARE, CONTROLS, MADE, OURS, WHAT
from condpdiff.report.blocks import Block, Figures, Section, number
from condpdiff.report.evaluation import Evaluation, arm_table, candidates, correlation, label_of
from condpdiff.report.images import LIGHT, Image, colour, figure, image, marker, styled

EARLY_LATE = LinearSegmentedColormap.from_list("steps", ["#a5c8ff", "#5b91f5", "#2b57cf"])
ITERATIONS = 1000
HEALTHY = 0.5  # spread of the samples over the zoo's below which they are near copies of one vector
CORRELATION = " ρ: Spearman's correlation of the two over condpdiff's candidates."


def section(evaluations: Sequence[Evaluation], params: Params) -> Section:
    """Tables and figures of every task."""
    view = (params.report.perplexity, params.report.seed)
    spread = "Root mean square distance of an arm's candidates to their own mean, over that of the zoo. Below "
    spread += f"{HEALTHY:g} the candidates are near copies of one vector."
    distance = arm_table(
        evaluations,
        "Median L2 from an arm's candidates to the nearest (other) checkpoint, and between consecutive checkpoints.",
        ("original", "soup", *MADE),
        lambda e, arm: number(float(np.median(e.values(arm, "distance")))),
    )
    step = ["one step of fine-tuning", *(number(e.step) for e in evaluations)]
    label = "L2 to the nearest checkpoint"
    near = [against_score(e, e.scores["distance"].to_numpy(float), "novelty", label, e.step) for e in evaluations]
    novelty = (
        f"Distance to the nearest checkpoint against the score ({label_of(evaluations)}). Dotted: one step of "
        "fine-tuning (the median distance of consecutive checkpoints). Soup and Gaussian lie away from every "
        "checkpoint: distance is no novelty."
    )
    clouds = (
        "t-SNE of the distances between weight vectors. Consecutive checkpoints form a thread; anything off it may "
        "form a cluster, which is no novelty. What is seen at one perplexity or seed alone is t-SNE's doing."
    )
    blocks: list[Block] = [
        arm_table(evaluations, spread, MADE, _spread),
        replace(distance, rows=[*distance.rows, step], foot=1),
        Figures(novelty + CORRELATION, near),
        *_mistakes(evaluations),
        Figures(clouds, [tsne(e, *view) for e in evaluations]),
    ]
    if followed := [e for e in evaluations if (e.ways[0]["arm"] == OURS).any()]:
        ways = "t-SNE of noises on their way to a LoRA, decoded at a few denoising steps, among checkpoints and soup. "
        ways += "A line is one noise. t-SNE shows who is near whom, not how far."
        blocks.append(Figures(ways, [trajectories(e, *view) for e in followed]))
    return Section("novelty", "Where the generated weights lie", blocks)


def _mistakes(evaluations: Sequence[Evaluation]) -> list[Block]:
    """Do the generated weights make the same mistakes as a checkpoint? Nothing without classes."""
    overlaps = {e.name: wrong_overlaps(e) for e in evaluations}
    if not (drawn := [e for e in evaluations if e.task.data.kind == "classification"]):
        return []

    def mean(e: Evaluation, arm: str) -> str:
        return number(float(overlaps[e.name][candidates(e.scores, arm).index].mean()))

    x = {e.name: np.where(e.scores["arm"].isin(list(BARE)), np.nan, overlaps[e.name]) for e in drawn}
    label = "largest IoU of mistakes with a checkpoint's"
    overlap = "Largest IoU of an arm's wrong predictions with those of any other scored checkpoint, mean over its "
    overlap += "candidates: 1 means the same mistakes. Classification only."
    caption = "Largest IoU of a candidate's wrong predictions with those of any other scored checkpoint against its "
    caption += "validation score: at the right the same mistakes as some checkpoint, at the left mistakes of its own."
    table = arm_table(evaluations, overlap, ("original", *CONTROLS, OURS), mean)
    return [table, Figures(caption + CORRELATION, [against_score(e, x[e.name], "mistakes", label) for e in drawn])]


def wrong_overlaps(e: Evaluation) -> np.ndarray:
    """Each candidate's largest IoU of wrong predictions with any *other* scored checkpoint: [R].

    The novelty measure of p-diff: 1 means the same mistakes as some checkpoint. Classification only (else NaN); NaN
    also for a lone checkpoint, which there is no other to hold against.
    """
    if e.task.data.kind != "classification":
        return np.full(len(e.scores), np.nan)
    wrong = (e.predictions != e.labels).astype(np.float64)  # [R, V]
    zoo = candidates(e.scores, "original").index
    both = wrong @ wrong[zoo].T  # [R, zoo]
    either = wrong.sum(1)[:, None] + wrong[zoo].sum(1) - both
    iou = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    iou[zoo, np.arange(len(zoo))] = np.nan  # not with itself
    return pd.DataFrame(iou).max(axis=1).to_numpy()


def _spread(e: Evaluation, arm: str) -> str:
    ratio = e.spread.get(arm, math.nan) / (e.spread.get("checkpoint") or math.nan)
    return number(ratio) + (" (narrow)" if arm == OURS and ratio < HEALTHY else "")


@styled
def against_score(e: Evaluation, x: np.ndarray, kind: str, label: str, step: float = math.nan) -> Image:
    """Candidates, x [R], by arm; those whose x is NaN are left out. `step` is x of a dotted line."""
    alt = f"{e.name}: {label} against {e.metric}"
    fig, (ax,) = figure(3.3)
    for arm in WHAT:
        rows = candidates(e.scores, arm).index
        if np.isnan(x[rows]).all():
            continue
        ax.scatter(
            x[rows], e.values(arm), s=34 if len(rows) == 1 else 18, marker=marker(arm), color=colour(arm), alpha=0.85,
            edgecolors=LIGHT["panel"], linewidths=0.5, label=arm, zorder=3 if arm == OURS else 2,
        )  # fmt: skip
    if np.isfinite(step):
        ax.axvline(step, color=LIGHT["muted"], lw=1, ls=":")
        ax.text(step, 1, " one step", transform=ax.get_xaxis_transform(), va="top", fontsize=7.5, color=LIGHT["muted"])
    rho = correlation(x[candidates(e.scores, OURS).index], e.values(OURS))
    if np.isfinite(rho):
        said = f"condpdiff: ρ = {rho:.2f}".replace("-", "−")
        ax.set_title(said, loc="right", fontsize=8, fontweight="normal", color=LIGHT["muted"])
        alt += f"; Spearman's correlation over condpdiff's candidates {rho:.2f}"
    ax.set(xlabel=label, ylabel=e.label, title=e.name)
    return image(fig, f"{kind}-{e.name}", alt, legend=3)


@styled
def tsne(e: Evaluation, perplexity: float, seed: int) -> Image:
    """Zoo and arms in two dimensions, a panel for each perplexity and seed; what few points make equal is one."""
    most, asked = max((len(e.distances) - 1) / 3, 1.0), [(perplexity * x, seed) for x in (1.0, 0.5, 2.0)]
    panels = list(dict.fromkeys((min(p, most), s) for p, s in [*asked, (perplexity, seed + 1)]))
    rows = (len(panels) + 1) // 2
    fig, axes = figure(1.2 + 1.75 * rows, rows, min(2, len(panels)))
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax, view in zip(axes, panels, strict=False):
        xy = embed(e.distances, *view)
        _checkpoints(ax, xy[candidates(e.points, "checkpoint").index])
        for arm in (arm for arm in WHAT if (e.points["arm"] == arm).any()):
            mine = xy[candidates(e.points, arm).index]
            _dots(ax, mine, arm, 6.5 if len(mine) == 1 else 4)
        ax.set_title(f"perplexity {view[0]:.3g}, seed {view[1]}", fontsize=8, fontweight="normal")
    fig.suptitle(e.name, x=0.02, ha="left", fontsize=9.5, fontweight="bold")
    alt = f"{e.name}: t-SNE of checkpoints, controls and generated weights at {len(panels)} settings"
    return image(fig, f"tsne-{e.name}", alt, legend=3)


@styled
def trajectories(e: Evaluation, perplexity: float, seed: int) -> Image:
    """Noises on their way to a LoRA, among checkpoints and soup."""
    points, distances = e.ways
    xy = embed(distances, perplexity, seed)
    fig, (ax,) = figure(3.5)
    _checkpoints(ax, xy[points["arm"] == "checkpoint"])
    _dots(ax, xy[points["arm"] == "soup"], "soup", 7)
    ways = [rows.sort_values("point").index for _, rows in points[points["arm"] == OURS].groupby("candidate")]
    for way in ways:
        ax.plot(*xy[way].T, "-o", color=colour(OURS), lw=0.9, ms=2.5, alpha=0.6, zorder=2)
    noise, end = (xy[[way[at] for way in ways]] for at in (0, -1))
    ax.plot(*noise.T, "o", ms=5.5, mfc=LIGHT["panel"], mec=colour(OURS), mew=1.2, zorder=4, label="noise")
    _dots(ax, end, OURS, 6)
    ax.set_title(e.name)
    alt = f"{e.name}: t-SNE of denoising trajectories, checkpoints and soup"
    return image(fig, f"trajectories-{e.name}", alt, legend=3)


def _checkpoints(ax: Axes, xy: np.ndarray) -> None:
    """The zoo [N, 2], first to last; t-SNE's axes have no unit."""
    ax.scatter(xy[:, 0], xy[:, 1], c=np.arange(len(xy)), cmap=EARLY_LATE, s=12, linewidths=0)
    for at, word in ((0.0, "first"), (1.0, "last")):
        ax.plot([], [], "o", color=EARLY_LATE(at), ms=5, label=f"checkpoint, {word}")
    ax.set(xticks=[], yticks=[])
    ax.margins(0.06)


def _dots(ax: Axes, xy: np.ndarray, arm: str, size: float) -> None:
    """Vectors of one arm [n, 2]; a larger mark lies above."""
    ax.plot(*xy.T, marker(arm), color=colour(arm), ms=size, mec=LIGHT["panel"], mew=0.4, zorder=size, label=arm)


def embed(distances: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """t-SNE of a distance matrix [M, M] -> [M, 2]; on one thread, as sums over threads differ by machine."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(perplexity, (len(distances) - 1) / 3)
    model = TSNE(metric="precomputed", init="random", random_state=seed, perplexity=perplexity, max_iter=ITERATIONS)
    with threadpool_limits(1):
        return model.fit_transform(distances.astype(np.float64))
