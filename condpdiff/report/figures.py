"""The report's figures: what beats what, the curves, and where the generated weights lie."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from condpdiff.report.compare import Comparison, correlation
from condpdiff.report.svg import LIGHT, SERIES, Image, figure, image, style
from condpdiff.report.tables import Scored, candidates, column, consecutive_distance

MARKERS = {
    "condpdiff": "D", "soup": "s", "soup_16": "P", "gaussian": "^", "pca_gaussian": "v", "checkpoint_noise": ">",
    "zero_decode": "X",
}  # fmt: skip
BARE = ("majority", "no_lora")
"""Arms whose scores may lie far from all others'; the range of a figure does not stretch to them."""
PANEL = 3.9  # inches: two abreast on a desktop, one on a phone, without unreadable text


def colour(arm: str) -> str:
    return LIGHT.get(arm, LIGHT["muted"])


def arms(e: Scored) -> Image:
    """One row an arm: its candidates as dots, their mean as a bar, the selected one as a ringed diamond."""
    with style():
        names = e.arms
        fig, ax = figure(PANEL, 0.9 + 0.27 * len(names))
        values = {arm: _scored(column(e.scores, candidates(e.scores, arm), "validation")) for arm in names}
        chosen = {arm: e.picked(arm) for arm in names}
        low, high = _range([v for arm, vs in values.items() if arm not in (*BARE, "floor") for v in vs])
        if "floor" in values and high - (floor := _range(values["floor"])[0]) < 3 * (high - low):
            low = min(low, floor)
        soup = values["soup"][0]
        ax.axvline(soup, color=colour("soup"), lw=1, ls=(0, (4, 3)), zorder=1)
        for i, arm in enumerate(names):
            _strip(ax, i, arm, values[arm], chosen[arm], low, high, e.decimals)
        ax.set_xlim(low, high)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(axis="y", length=0)
        ax.get_yticklabels()[names.index("condpdiff")].set_fontweight("bold")
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(e.label)
        ax.set_title(e.name)
        picked = ", ".join(f"{a} {chosen[a]:.{e.decimals}f}" for a in names)
        return image(fig, f"arms-{e.name}", f"{e.name}: {e.metric} of every arm; selected candidates: {picked}")


def _scored(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def _strip(
    ax: Axes, y: int, arm: str, values: np.ndarray, picked: float, low: float, high: float, decimals: int
) -> None:
    """One arm; what falls out of the range is an arrow at its edge, so that the rest keeps its resolution."""
    c = colour(arm)
    ax.annotate(
        f"{picked:.{decimals}f}", (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=8,
        color=LIGHT["ink"], fontweight="bold" if arm == "condpdiff" else "normal", annotation_clip=False,
    )  # fmt: skip
    if not low <= picked <= high:
        edge, marker = (low + 0.012 * (high - low), "<") if picked < low else (high - 0.012 * (high - low), ">")
        ax.plot(edge, y, marker, color=c, ms=5, clip_on=False)
        return
    if len(values) > 1:
        jitter = 0.26 * (((np.arange(len(values)) * 0.618034) % 1) * 2 - 1)  # golden ratio: even, and not random
        ax.scatter(values, y + jitter, s=11, color=c, alpha=0.45, linewidths=0, zorder=2)
        ax.plot([values.mean()] * 2, [y - 0.34, y + 0.34], color=c, lw=2, solid_capstyle="butt", zorder=3)
    ax.plot(picked, y, "D", ms=5.5, mfc=c, mec=LIGHT["panel"], mew=1, zorder=4)


def _range(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = max(0.06 * (high - low), 0.25)
    return low - pad, high + pad


def forest(comparisons: Sequence[Comparison], unit: str = "points", noun: str = "tasks") -> Image:
    """condpdiff minus each other arm with its interval, for each task and for their mean."""
    with style():
        tasks = list(comparisons[0].tasks)
        rows = [*tasks, f"mean of {noun}"] if len(tasks) > 1 else tasks
        fig, ax = figure(4.4, 1.0 + (0.13 * len(comparisons) + 0.1) * len(rows))
        ax.axvline(0, color=LIGHT["ink"], lw=1)
        for j, c in enumerate(comparisons):
            each = [*c.tasks.values(), c.average] if len(tasks) > 1 else list(c.tasks.values())
            y = np.arange(len(rows)) + (j - (len(comparisons) - 1) / 2) * 0.21
            x = np.array([d.value for d in each])
            error = np.abs(np.array([[d.low, d.high] for d in each]).T - x)
            ax.errorbar(
                x, y, xerr=error, fmt=MARKERS.get(c.arm, "o"), color=colour(c.arm), ms=5.5, mec=LIGHT["panel"],
                mew=0.7, lw=1.6, label=f"minus {c.arm}",
            )  # fmt: skip
        if len(tasks) > 1:
            ax.axhspan(len(tasks) - 0.5, len(tasks) + 0.5, color=LIGHT["line"], alpha=0.55, lw=0, zorder=0)
            ax.set_ylim(len(rows) - 0.5, -0.5)
        else:
            ax.set_ylim(0.7, -0.7)
        ax.set_yticks(range(len(rows)), rows)
        if len(tasks) > 1:
            ax.get_yticklabels()[-1].set_fontweight("bold")
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(f"condpdiff minus the other arm, {unit}")
        fig.legend(loc="outside upper left", ncols=len(comparisons), handletextpad=0.3, columnspacing=1.2)
        alt = "; ".join(f"condpdiff minus {c.arm}: {c.average}" for c in comparisons)
        return image(fig, "differences", f"Differences between selected candidates, mean of {noun}: {alt}")


def task_curves(
    frame: pd.DataFrame, y: str, name: str, label: str, opens: dict[str, int], smooth: int = 1, log: bool = False
) -> Image:
    """One line a task of a frame task, step, <y>; a tick at the bottom where its collection window opens."""
    with style():
        fig, ax = figure(PANEL, 3.1)
        for i, (task, rows) in enumerate(frame.groupby("task", sort=False)):
            c = LIGHT[SERIES[i % len(SERIES)]]
            line = rows[y].rolling(smooth, min_periods=1, center=True).mean()
            ax.plot(rows["step"], line, color=c, lw=1.5, marker="o" if len(rows) < 25 else "", ms=3, label=task)
            ax.plot([opens[str(task)]] * 2, [0, 0.05], color=c, lw=2, transform=ax.get_xaxis_transform(), alpha=0.8)
        _finish_curve(ax, label, log)
        fig.legend(loc="outside lower left", ncols=4, handlelength=1.2, columnspacing=1.2)
        return image(fig, name, f"{label} over fine-tuning steps, one line for each task")


def curve(frame: pd.DataFrame, ys: Sequence[str], name: str, title: str) -> Image:
    """Training curve of one network on a logarithmic axis: a frame step, <ys>..."""
    with style():
        fig, ax = figure(PANEL, 2.9)
        for y, c in zip(ys, ("original", "condpdiff"), strict=False):
            rows = frame[["step", y]].dropna()
            if len(rows) >= 100:  # single batches are noisy: show them faintly under their running mean
                ax.plot(rows["step"], rows[y], color=LIGHT[c], lw=0.6, alpha=0.3)
                rows = rows.assign(**{y: rows[y].rolling(len(rows) // 40, min_periods=1, center=True).mean()})
            ax.plot(rows["step"], rows[y], color=LIGHT[c], lw=1.6, label=y)
        _finish_curve(ax, "loss", log=bool((frame[list(ys)].min() > 0).all()))
        ax.set_title(title)
        if len(ys) > 1:
            ax.legend()
        return image(fig, name, f"{title}: training loss over steps")


def _finish_curve(ax: Axes, label: str, log: bool) -> None:
    ax.set_xlabel("step")
    ax.set_ylabel(label)
    ax.margins(x=0.02)
    if log:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())


def novelty(e: Scored) -> Image:
    """L2 to the nearest checkpoint against the score, every candidate a dot."""
    step = consecutive_distance(e)
    alt = f"{e.name}: distance to the nearest checkpoint against {e.metric}"
    distances = column(e.scores, np.arange(len(e.scores)), "distance")
    return _against_score(e, distances, f"novelty-{e.name}", "L2 to the nearest checkpoint", alt, step)


def mistakes(e: Scored, overlap: np.ndarray) -> Image:
    """Largest IoU [R] of mistakes with a checkpoint's against the score, every candidate a dot."""
    alt = f"{e.name}: largest overlap of mistakes with those of a checkpoint against {e.metric}"
    shown = np.where(e.scores["arm"].isin(BARE), np.nan, overlap)
    return _against_score(e, shown, f"mistakes-{e.name}", "largest IoU of mistakes with a checkpoint's", alt)


def _against_score(e: Scored, x: np.ndarray, name: str, label: str, alt: str, step: float = math.nan) -> Image:
    """Candidates [R] by arm; those whose x is NaN are left out.

    Args:
        step: x of a dotted line.
    """
    with style():
        fig, ax = figure(PANEL, 3.3)
        for arm in e.arms:
            rows = candidates(e.scores, arm)
            if np.isnan(x[rows]).all():
                continue
            ax.scatter(
                x[rows], column(e.scores, rows, "validation"), s=34 if len(rows) == 1 else 18,
                marker=MARKERS.get(arm, "o"), color=colour(arm), alpha=0.85, edgecolors=LIGHT["panel"], linewidths=0.5,
                label=arm, zorder=3 if arm == "condpdiff" else 2,
            )  # fmt: skip
        if np.isfinite(step):
            ax.axvline(step, color=LIGHT["muted"], lw=1, ls=":")
            ax.annotate(
                "one step", (step, 1), xycoords=("data", "axes fraction"), xytext=(3, -1), va="top", fontsize=7.5,
                textcoords="offset points", color=LIGHT["muted"],
            )  # fmt: skip
        ours = candidates(e.scores, "condpdiff")
        rho = correlation(x[ours], column(e.scores, ours, "validation"))
        if np.isfinite(rho):
            said = f"condpdiff: ρ = {rho:.2f}".replace("-", "−")
            ax.set_title(said, loc="right", fontsize=8, fontweight="normal", color=LIGHT["muted"])
            alt += f"; Spearman's correlation over condpdiff's candidates {rho:.2f}"
        ax.set_xlabel(label)
        ax.set_ylabel(e.label)
        ax.set_title(e.name)
        fig.legend(loc="outside lower left", ncols=3, handletextpad=0.2, columnspacing=1)
        return image(fig, name, alt)
