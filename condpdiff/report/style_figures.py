"""Figures that styles alone have."""

import numpy as np

from condpdiff.report.figures import EARLY_LATE, MARKERS, PANEL, colour, dot, embed
from condpdiff.report.style_tables import NOISE, StyleEvaluation
from condpdiff.report.svg import LIGHT, Image, figure, image, style


def has_trajectories(e: StyleEvaluation) -> bool:
    """Noises were followed on their way."""
    return bool((e.trajectories[0]["arm"] == NOISE).any())


def trajectories(e: StyleEvaluation, perplexity: float, seed: int) -> Image:
    """Noises on their way to a LoRA, among checkpoints and soup; from the distances in theta space alone."""
    points, distances = e.trajectories
    xy = embed(distances, perplexity, seed)
    arm, order = points["arm"].to_numpy(), points["point"].to_numpy()
    with style():
        fig, ax = figure(PANEL, 3.5)
        zoo = np.flatnonzero(arm == "checkpoint")
        ax.scatter(xy[zoo, 0], xy[zoo, 1], c=np.arange(len(zoo)), cmap=EARLY_LATE, s=15, linewidths=0)
        handles = [dot(EARLY_LATE(x), "o", f"checkpoint, {word}") for x, word in ((0.0, "first"), (1.0, "last"))]
        soup = np.flatnonzero(arm == "soup")
        ax.scatter(
            xy[soup, 0], xy[soup, 1], s=60, marker=MARKERS["soup"], color=colour("soup"), zorder=4,
            edgecolors=LIGHT["panel"], linewidths=0.5,
        )  # fmt: skip
        handles.append(dot(colour("soup"), MARKERS["soup"], "soup"))
        for noise in points.loc[arm == NOISE, "candidate"].unique():
            mine = np.flatnonzero((arm == NOISE) & (points["candidate"] == noise))
            way = xy[mine[np.argsort(order[mine], kind="stable")]]
            ours = colour("condpdiff")
            ax.plot(way[:, 0], way[:, 1], "-o", color=ours, lw=0.9, ms=2.5, alpha=0.6, zorder=2)
            ax.plot(*way[0], "o", ms=5.5, mfc=LIGHT["panel"], mec=ours, mew=1.2, zorder=4)
            ax.plot(*way[-1], MARKERS["condpdiff"], ms=6, mfc=ours, mec=LIGHT["panel"], mew=0.7, zorder=5)
        handles.append(dot(LIGHT["panel"], "o", "noise", edge=colour("condpdiff")))
        handles.append(dot(colour("condpdiff"), MARKERS["condpdiff"], "condpdiff"))
        ax.set_xticks([])
        ax.set_yticks([])
        ax.margins(0.06)
        ax.set_title(e.name)
        fig.legend(handles=handles, loc="outside lower left", ncols=3, handletextpad=0.1, columnspacing=1)
        return image(fig, f"trajectories-{e.name}", f"{e.name}: t-SNE of denoising trajectories, checkpoints and soup")
