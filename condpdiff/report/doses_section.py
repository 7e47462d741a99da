"""Asked-for against obtained performance: do samples get better as better ones are asked for?"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from condpdiff.experiments.params import Params
from condpdiff.report import images
from condpdiff.report.arms import OURS
from condpdiff.report.blocks import Block, Figures, Section, Table, number
from condpdiff.report.evaluation import Evaluation, correlation, read_csv
from condpdiff.report.images import DASHED, LIGHT, Image, colour, marker, styled

SHOWN = [0.0, 0.5, 1.0]  # doses of the table


def frame(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """task, asked, candidate, loss, validation: every dose's candidates of all tasks, for `dvc plots`."""
    found = pd.concat(samples(e).assign(task=e.name) for e in evaluations)
    return found[["task", "asked", "candidate", "loss", "validation"]]


def sections(evaluations: Sequence[Evaluation], params: Params, data: Path) -> list[Section]:
    """Nothing where no performance was asked for; the loss of the checkpoints is in `data/performance/`."""
    from condpdiff.zoo.performance import performance_of  # scipy.stats: half a second

    if not (shown := [e for e in evaluations if len(e.doses)]):
        return []
    drawn = []
    for e in shown:
        zoo = read_csv(data / "performance" / f"{e.name}.csv", ["checkpoint", "loss"])["loss"]
        loss = np.sort(zoo.to_numpy(dtype=np.float64)[-params.normalize.n_checkpoints :])[::-1]
        drawn.append(figure(e, performance_of(loss, params.ldm.performance), loss))
    caption = "Samples (dots) and their mean (line) by the performance p that they were asked for, 0 being the zoo's "
    caption += "worst checkpoint and 1 its best, on the held-out rows that p is measured on. Blue: the checkpoints. "
    blocks: list[Block] = [Figures(caption + "Dashed: soup.", drawn), table(shown)]
    return [Section("doses", "Asked-for against obtained performance", blocks)]


@styled
def figure(e: Evaluation, p: np.ndarray, loss: np.ndarray) -> Image:
    """Loss by dose, and below it the validation score; p and loss [N] of the checkpoints."""
    shown = {"loss": "loss on held-out rows", "validation": e.label}
    fig, axes = images.figure(0.8 + 1.9 * len(shown), len(shown))
    axes[0].plot(p, loss, color=colour("original"), lw=1.5, label="checkpoints")
    ours, soup, c = samples(e), samples(e, "soup").iloc[0], colour(OURS)
    x = ours["asked"] + 0.02 * images.jitter(ours["candidate"])
    for ax, (y, label) in zip(axes, shown.items(), strict=True):
        ax.scatter(x, ours[y], s=11, color=c, alpha=0.5, linewidths=0)
        means, line = ours.groupby("asked")[y].mean(), f"-{marker(OURS)}"
        ax.plot(means, line, color=c, lw=1.6, ms=4, mec=LIGHT["panel"], mew=0.7, label="condpdiff, mean")
        ax.axhline(soup[y], color=colour("soup"), lw=1, ls=DASHED, label="soup")
        ax.set_ylabel(label)
    axes[1].axhline(e.values("original").mean(), color=colour("original"), lw=1.5)
    axes[0].set_title(e.name)
    axes[-1].set_xlabel("performance asked for, p")
    return images.image(fig, f"dose-{e.name}", f"{e.name}: loss of samples by asked-for performance", legend=3)


def table(shown: list[Evaluation]) -> Table:
    """Correlation, means at three doses (a dash for one that was not asked for), and soup."""
    columns = ["task", "Spearman", *(f"loss, p = {p:g}" for p in SHOWN), "loss, soup"]
    columns += [f"validation, p = {p:g}" for p in SHOWN]
    rows = []
    for e in shown:
        ours = samples(e)
        means = ours.groupby(ours["asked"].round(6))[["loss", "validation"]].mean().reindex(SHOWN)
        rho = number(correlation(ours["asked"], -ours["loss"]))
        losses = [number(x, 3) for x in [*means["loss"], *samples(e, "soup")["loss"]]]
        rows.append([e.name, rho, *losses, *(number(x, 1) for x in means["validation"])])
    caption = "Spearman correlation of p with the negative loss: 1 means that asking for better gives better, 0 that "
    return Table(caption + "asking has no effect. Then means at p.", columns, rows)


def samples(e: Evaluation, arm: str = OURS) -> pd.DataFrame:
    """The doses of condpdiff, or the one row of soup."""
    return e.doses[e.doses["arm"] == arm]
