"""The report's figures: what beats what, and where the generated weights lie; t-SNE is of distances alone."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from condpdiff.report.arms import OURS
from condpdiff.report.compare import Comparison, correlation
from condpdiff.report.evaluation import Evaluation, candidates
from condpdiff.report.images import DASHED, LIGHT, Image, colour, figure, image, jitter, marker, named_rows, styled

EARLY_LATE = LinearSegmentedColormap.from_list("steps", ["#a5c8ff", "#5b91f5", "#2b57cf"])
FACTORS = (1.0, 0.5, 2.0)  # of `report.perplexity`: what is seen at one perplexity alone is t-SNE's doing
ITERATIONS = 1000


@styled
def arms(e: Evaluation) -> Image:
    """One row an arm: candidates as dots, mean as a bar, the selected one as a diamond, or an arrow at the edge."""
    names = e.arms
    fig, (ax,) = figure(0.9 + 0.27 * len(names))
    values = {arm: v[~np.isnan(v)] for arm in names for v in (e.values(arm),)}
    shown = np.concatenate([v for arm, v in values.items() if arm not in e.scale.bare])
    pad = max(0.06 * np.ptp(shown), 0.25)
    low, high = shown.min() - pad, shown.max() + pad
    ax.axvline(values["soup"][0], color=colour("soup"), lw=1, ls=DASHED, zorder=1)
    for y, arm in enumerate(names):
        v, picked, c = values[arm], e.picked(arm), colour(arm)
        if not low <= picked <= high:
            edge = np.clip(picked, low + pad / 5, high - pad / 5)
            ax.plot(edge, y, "<" if picked < low else ">", color=c, ms=5, clip_on=False)
        else:
            if len(v) > 1:
                ax.scatter(v, y + 0.26 * jitter(np.arange(len(v))), s=11, color=c, alpha=0.45, linewidths=0, zorder=2)
                ax.plot([v.mean()] * 2, [y - 0.34, y + 0.34], color=c, lw=2, solid_capstyle="butt", zorder=3)
            ax.plot(picked, y, "D", ms=5.5, mfc=c, mec=LIGHT["panel"], mew=1, zorder=4)
        at, weight = ax.get_yaxis_transform(), "bold" if arm == OURS else "normal"
        ax.text(1.02, y, f"{picked:.1f}", transform=at, va="center", fontsize=8, fontweight=weight)
    ax.set(xlim=(low, high), xlabel=e.label, title=e.name)
    named_rows(ax, names, names.index(OURS))
    said = ", ".join(f"{arm} {e.picked(arm):.1f}" for arm in names)
    return image(fig, f"arms-{e.name}", f"{e.name}: {e.metric} of every arm; selected candidates: {said}")


@styled
def forest(comparisons: Sequence[Comparison]) -> Image:
    """condpdiff minus each other arm with its interval, for each task and for their mean."""
    tasks = list(comparisons[0].tasks)
    several = len(tasks) > 1
    rows = [*tasks, "mean of tasks"] if several else tasks
    fig, (ax,) = figure(1.0 + (0.13 * len(comparisons) + 0.1) * len(rows), width=4.4)
    ax.axvline(0, color=LIGHT["ink"], lw=1)
    for j, c in enumerate(comparisons):
        each = [*c.tasks.values(), *([c.average] if several else [])]
        y = np.arange(len(rows)) + (j - (len(comparisons) - 1) / 2) * 0.21
        x = np.array([d.value for d in each])
        error = np.abs(np.array([[d.low, d.high] for d in each]).T - x)
        ax.errorbar(
            x, y, xerr=error, fmt=marker(c.arm), color=colour(c.arm), ms=5.5, mec=LIGHT["panel"],
            mew=0.7, lw=1.6, label=f"minus {c.arm}",
        )  # fmt: skip
    if several:
        ax.axhspan(len(tasks) - 0.5, len(tasks) + 0.5, color=LIGHT["line"], alpha=0.55, lw=0, zorder=0)
    named_rows(ax, rows, -1, pad=0.5 if several else 0.7)
    ax.set_xlabel("condpdiff minus the other arm, points")
    alt = "; ".join(f"condpdiff minus {c.arm}: {c.average}" for c in comparisons)
    said = f"Differences between selected candidates, mean of tasks: {alt}"
    return image(fig, "differences", said, legend=len(comparisons))


@styled
def against_score(e: Evaluation, x: np.ndarray, name: str, label: str, alt: str, step: float = math.nan) -> Image:
    """Candidates, x [R], by arm; those whose x is NaN are left out. `step` is x of a dotted line."""
    fig, (ax,) = figure(3.3)
    for arm in e.arms:
        rows = candidates(e.scores, arm).index
        if np.isnan(x[rows]).all():
            continue
        ax.scatter(
            x[rows], e.values(arm), s=34 if len(rows) == 1 else 18, marker=marker(arm), color=colour(arm), alpha=0.85,
            edgecolors=LIGHT["panel"], linewidths=0.5, label=arm, zorder=3 if arm == OURS else 2,
        )  # fmt: skip
    if np.isfinite(step):
        ax.axvline(step, color=LIGHT["muted"], lw=1, ls=":")
        at, muted = ax.get_xaxis_transform(), LIGHT["muted"]
        ax.text(step, 1, " one step", transform=at, va="top", fontsize=7.5, color=muted)
    rho = correlation(x[candidates(e.scores, OURS).index], e.values(OURS))
    if np.isfinite(rho):
        said = f"condpdiff: ρ = {rho:.2f}".replace("-", "−")
        ax.set_title(said, loc="right", fontsize=8, fontweight="normal", color=LIGHT["muted"])
        alt += f"; Spearman's correlation over condpdiff's candidates {rho:.2f}"
    ax.set(xlabel=label, ylabel=e.label, title=e.name)
    return image(fig, name, alt, legend=3)


def views(count: int, perplexity: float, seed: int) -> list[tuple[float, int]]:
    """Perplexity and seed of each panel; those that so few points make equal are one."""
    asked = [*((perplexity * factor, seed) for factor in FACTORS), (perplexity, seed + 1)]
    return list(dict.fromkeys((min(p, max((count - 1) / 3, 1.0)), s) for p, s in asked))


@styled
def tsne(e: Evaluation, perplexity: float, seed: int) -> Image:
    """Zoo and arms in two dimensions, a panel for each perplexity and seed."""
    panels = views(len(e.distances), perplexity, seed)
    rows = (len(panels) + 1) // 2
    fig, axes = figure(1.2 + 1.75 * rows, rows, min(2, len(panels)))
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax, view in zip(axes, panels, strict=False):
        xy = embed(e.distances, *view)
        _checkpoints(ax, xy[candidates(e.points, "checkpoint").index])
        for arm in (arm for arm in e.arms if (e.points["arm"] == arm).any()):
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

    model = TSNE(
        metric="precomputed", init="random", random_state=seed, perplexity=min(perplexity, (len(distances) - 1) / 3),
        max_iter=ITERATIONS,
    )  # fmt: skip
    with threadpool_limits(1):
        return model.fit_transform(distances.astype(np.float64))
