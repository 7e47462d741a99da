"""t-SNE of weight vectors, from their distances alone: where arms lie, and where noises go on their way to LoRAs."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from condpdiff.report.figures import MARKERS, PANEL, colour
from condpdiff.report.svg import LIGHT, Image, figure, image, style
from condpdiff.report.tables import Scored, candidates

EARLY_LATE = LinearSegmentedColormap.from_list("steps", ["#a5c8ff", "#5b91f5", "#2b57cf"])
FACTORS = (1.0, 0.5, 2.0)
"""Of `report.perplexity`: what is seen at one perplexity alone is t-SNE's doing."""
ITERATIONS = 1000
NOISE = "condpdiff"
"""Arm of the points of denoising; a candidate is one noise."""

Points = tuple[pd.DataFrame, np.ndarray]
"""[M] arm, candidate, point; and the distances [M, M] between the checkpoints, the soup and what noises become."""


def views(count: int, perplexity: float, seed: int) -> list[tuple[float, int]]:
    """Perplexity and seed of each panel; those that so few points make equal are one."""
    largest = max((count - 1) / 3, 1.0)
    asked = [*((perplexity * factor, seed) for factor in FACTORS), (perplexity, seed + 1)]
    return list(dict.fromkeys((min(p, largest), s) for p, s in asked))


def tsne(e: Scored, perplexity: float, seed: int) -> Image:
    """Zoo and arms in two dimensions, a panel for each perplexity and seed."""
    panels = views(len(e.distances), perplexity, seed)
    with style():
        rows = (len(panels) + 1) // 2
        fig = Figure(figsize=(PANEL, 1.2 + 1.75 * rows), layout="constrained")
        axes = fig.subplots(rows, min(2, len(panels)), squeeze=False).ravel()
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        for ax, view in zip(axes, panels, strict=False):
            handles = _arms(ax, e, embed(e.distances, *view))
            _bare(ax)
            ax.set_title(f"perplexity {view[0]:.3g}, seed {view[1]}", fontsize=8, fontweight="normal")
        fig.suptitle(e.name, x=0.02, ha="left", fontsize=9.5, fontweight="bold")
        fig.legend(handles=handles, loc="outside lower left", ncols=3, handletextpad=0.1, columnspacing=1)
        alt = f"{e.name}: t-SNE of checkpoints, controls and generated weights at {len(panels)} settings"
        return image(fig, f"tsne-{e.name}", alt)


def _arms(ax: Axes, e: Scored, xy: np.ndarray) -> list[Line2D]:
    """Draw one panel; the handles of its legend."""
    handles = _checkpoints(ax, xy[candidates(e.points, "checkpoint")])
    for arm in e.arms:
        mine = candidates(e.points, arm)
        if not len(mine):
            continue
        single, marker = len(mine) == 1, MARKERS.get(arm, "o")
        ax.scatter(
            xy[mine, 0], xy[mine, 1], s=42 if single else 13, marker=marker, color=colour(arm), linewidths=0.4,
            edgecolors=LIGHT["panel"], zorder=4 if single else 3,
        )  # fmt: skip
        handles.append(_dot(colour(arm), marker, arm))
    return handles


def trajectories(name: str, found: Points, perplexity: float, seed: int) -> Image:
    """Noises on their way to a LoRA, among checkpoints and soup."""
    points, distances = found
    xy = embed(distances, perplexity, seed)
    arm, order = points["arm"].to_numpy(), points["point"].to_numpy()
    with style():
        fig, ax = figure(PANEL, 3.5)
        handles = _checkpoints(ax, xy[arm == "checkpoint"])
        soup = np.flatnonzero(arm == "soup")
        ax.scatter(
            xy[soup, 0], xy[soup, 1], s=60, marker=MARKERS["soup"], color=colour("soup"), zorder=4,
            edgecolors=LIGHT["panel"], linewidths=0.5,
        )  # fmt: skip
        handles.append(_dot(colour("soup"), MARKERS["soup"], "soup"))
        for noise in points.loc[arm == NOISE, "candidate"].unique():
            mine = np.flatnonzero((arm == NOISE) & (points["candidate"] == noise))
            way = xy[mine[np.argsort(order[mine], kind="stable")]]
            ours = colour("condpdiff")
            ax.plot(way[:, 0], way[:, 1], "-o", color=ours, lw=0.9, ms=2.5, alpha=0.6, zorder=2)
            ax.plot(*way[0], "o", ms=5.5, mfc=LIGHT["panel"], mec=ours, mew=1.2, zorder=4)
            ax.plot(*way[-1], MARKERS["condpdiff"], ms=6, mfc=ours, mec=LIGHT["panel"], mew=0.7, zorder=5)
        handles.append(_dot(LIGHT["panel"], "o", "noise", edge=colour("condpdiff")))
        handles.append(_dot(colour("condpdiff"), MARKERS["condpdiff"], "condpdiff"))
        _bare(ax)
        ax.set_title(name)
        fig.legend(handles=handles, loc="outside lower left", ncols=3, handletextpad=0.1, columnspacing=1)
        return image(fig, f"trajectories-{name}", f"{name}: t-SNE of denoising trajectories, checkpoints and soup")


def has_noises(found: Points) -> bool:
    """Noises were followed on their way."""
    return bool((found[0]["arm"] == NOISE).any())


def _checkpoints(ax: Axes, xy: np.ndarray) -> list[Line2D]:
    """The zoo [N, 2], first to last; the handles of its legend."""
    ax.scatter(xy[:, 0], xy[:, 1], c=np.arange(len(xy)), cmap=EARLY_LATE, s=12, linewidths=0)
    return [_dot(EARLY_LATE(x), "o", f"checkpoint, {word}") for x, word in ((0.0, "first"), (1.0, "last"))]


def _dot(c: object, marker: str, label: str, edge: str = LIGHT["panel"]) -> Line2D:
    """A legend's handle."""
    return Line2D([], [], ls="", marker=marker, color=c, mec=edge, mew=0.5, ms=6, label=label)  # type: ignore[arg-type]


def _bare(ax: Axes) -> None:
    """t-SNE's axes have no unit."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.margins(0.06)


def embed(distances: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """t-SNE of a distance matrix [M, M] -> [M, 2]; on one thread, as sums over threads differ by machine."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    m = len(distances)
    if m < 4:
        return np.c_[np.arange(m), np.zeros(m)].astype(float)
    method = "exact" if m <= 600 else "barnes_hut"
    model = TSNE(
        metric="precomputed", init="random", random_state=seed, perplexity=min(perplexity, (m - 1) / 3), method=method,
        max_iter=ITERATIONS,
    )  # fmt: skip
    with threadpool_limits(1):
        return model.fit_transform(distances.astype(np.float64))
