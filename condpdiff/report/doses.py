"""Asked-for against obtained performance: do samples get better as better ones are asked for?"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from condpdiff.report import compare
from condpdiff.report.blocks import Block, Figures, Table
from condpdiff.report.figures import PANEL, colour
from condpdiff.report.svg import LIGHT, Image, image, style
from condpdiff.report.tables import Scored, pivot, summarise
from condpdiff.zoo.performance import performance_of

SHOWN = (0.0, 0.5, 1.0)
"""Doses of the table."""
FIGURE = (
    "Loss of samples that were asked for performance p, 0 being the zoo's worst checkpoint and 1 its best: each sample "
    "(dots) and their mean (line), on the held-out training rows that p is measured on. Blue: the checkpoints "
    "themselves at their own p. Dashed: soup."
)
FIGURE_VALIDATION = " Below: the same samples' validation score; blue: the mean of the scored checkpoints."
TABLE = (
    "Spearman correlation of p with the negative loss, over all doses' samples: 1 means that asking for better gives "
    "better, 0 that asking has no effect. Then the mean loss at p, and soup's."
)
TABLE_VALIDATION = " Last the mean validation score at p, in percent."


def with_doses(evaluations: Sequence[Scored]) -> list[Scored]:
    """The tasks that samples of asked-for performance were scored of."""
    return [e for e in evaluations if len(e.doses)]


def frame(evaluations: Sequence[Scored]) -> pd.DataFrame:
    """task, asked, candidate, loss, validation: every dose's candidates of all tasks, for `dvc plots`."""
    columns = ["task", "asked", "candidate", "loss", "validation"]
    parts = [_samples(e).assign(task=e.name)[columns] for e in with_doses(evaluations)]
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns)


def blocks(evaluations: Sequence[Scored], zoo: dict[str, np.ndarray], kind: str) -> list[Block]:
    """Figure and table of the tasks that have doses.

    Args:
        zoo: task -> loss [N] of its checkpoints.
        kind: `ldm.performance`, how p comes from the loss: `rank` or `loss`.
    """
    shown = with_doses(evaluations)
    scored = all(e.doses_scored for e in shown)
    return [
        Figures(
            FIGURE + (FIGURE_VALIDATION if scored else ""), [figure(e, zoo_curve(zoo[e.name], kind)) for e in shown]
        ),
        _table(shown, scored),
    ]


def zoo_curve(loss: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """p and loss [N] of the checkpoints, worst first."""
    loss = np.sort(loss)[::-1]
    return performance_of(loss, kind), loss


def figure(e: Scored, checkpoints: tuple[np.ndarray, np.ndarray]) -> Image:
    """Loss by dose, and below it the validation score where there is one."""
    with style():
        rows = 2 if e.doses_scored else 1
        fig = Figure(figsize=(PANEL, 0.8 + 1.9 * rows), layout="constrained")
        axes = fig.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
        axes[0].plot(*checkpoints, color=colour("original"), lw=1.5, label="checkpoints")
        _doses(axes[0], e, "loss")
        axes[0].axhline(_soup(e, "loss"), color=colour("soup"), lw=1, ls=(0, (4, 3)), label="soup")
        axes[0].set_ylabel("loss on held-out rows")
        axes[0].set_title(e.name)
        if e.doses_scored:
            _doses(axes[1], e, "validation")
            axes[1].axhline(_mean_original(e), color=colour("original"), lw=1.5)
            axes[1].axhline(_soup(e, "validation"), color=colour("soup"), lw=1, ls=(0, (4, 3)))
            axes[1].set_ylabel(e.label)
        axes[-1].set_xlabel("performance asked for, p")
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=3, columnspacing=1.2)
        alt = f"{e.name}: loss of samples by asked-for performance; Spearman correlation {_cell(correlation(e))}"
        return image(fig, f"dose-{e.name}", alt)


def _doses(ax: Axes, e: Scored, y: str) -> None:
    """Candidates as dots, spread a little over x, and the line of their means."""
    samples = _samples(e)
    jitter = 0.02 * (((samples["candidate"] * 0.618034) % 1) * 2 - 1)  # golden ratio: even, and not random
    ax.scatter(samples["asked"] + jitter, samples[y], s=11, color=colour("condpdiff"), alpha=0.5, linewidths=0)
    means = samples.groupby("asked")[y].mean()
    ax.plot(
        means.index, means, "-D", color=colour("condpdiff"), lw=1.6, ms=4.5, mec=LIGHT["panel"], mew=0.7,
        label="condpdiff, mean",
    )  # fmt: skip


def _table(shown: list[Scored], scored: bool) -> Table:
    columns = ["task", "Spearman", *(f"loss, p = {p:g}" for p in SHOWN), "loss, soup"]
    columns += [f"validation, p = {p:g}" for p in SHOWN] if scored else []
    rows = []
    for e in shown:
        row = [e.name, _cell(correlation(e)), *(_cell(_mean_at(e, p, "loss"), 3) for p in SHOWN)]
        row += [_cell(_soup(e, "loss"), 3), *(_cell(_mean_at(e, p, "validation"), 1) for p in SHOWN if scored)]
        rows.append(row)
    return Table(TABLE + (TABLE_VALIDATION if scored else ""), columns, rows)


def correlation(e: Scored) -> float:
    """Spearman's, of the performance asked for with the negative loss; losses that are not numbers are left out."""
    asked, loss = (_samples(e)[c].to_numpy(dtype=np.float64) for c in ("asked", "loss"))
    return compare.correlation(asked, -loss)


def unscored(e: Scored) -> int:
    """Doses' samples whose loss is not a number."""
    return int(_samples(e)["loss"].isna().sum())


def _samples(e: Scored) -> pd.DataFrame:
    return e.doses[e.doses["arm"] == "condpdiff"]


def _soup(e: Scored, column: str) -> float:
    return float(e.doses.loc[e.doses["arm"] == "soup", column].iloc[0])


def _mean_at(e: Scored, p: float, column: str) -> float:
    """NaN if p was not asked for."""
    samples = _samples(e)
    return float(samples.loc[np.isclose(samples["asked"], p, atol=1e-6), column].mean())


def _mean_original(e: Scored) -> float:
    return pivot(summarise([e]), "mean")["original"][e.name]


def _cell(value: float, decimals: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:.{decimals}f}".replace("-", "−")
