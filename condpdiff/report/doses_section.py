"""Asked-for against obtained performance: do samples get better as better ones are asked for?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from condpdiff.experiments.params import Params
from condpdiff.report import compare, images
from condpdiff.report.arms import OURS
from condpdiff.report.blocks import Figures, Section, Table
from condpdiff.report.compare import number
from condpdiff.report.evaluation import Evaluation, Spec, read_csv
from condpdiff.report.images import DASHED, LIGHT, Image, colour, marker, styled

SHOWN = [0.0, 0.5, 1.0]  # doses of the table
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


def frame(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """task, asked, candidate, loss, validation: every dose's candidates of all tasks, for `dvc plots`."""
    columns = ["task", "asked", "candidate", "loss", "validation"]
    parts = [samples(e).assign(task=e.name)[columns] for e in evaluations if len(e.doses)]
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns)


def sections(spec: Spec, params: Params) -> list[Section]:
    """Nothing where no performance was asked for; the loss of the checkpoints is in `data/performance/`."""
    from condpdiff.zoo.performance import performance_of  # scipy.stats: half a second

    if not (shown := [e for e in spec.evaluations if len(e.doses)]):
        return []
    scored, drawn = all(map(is_scored, shown)), []
    for e in shown:
        zoo = read_csv(spec.data / "performance" / f"{e.name}.csv", ["checkpoint", "loss"])["loss"]
        loss = np.sort(zoo.to_numpy(dtype=np.float64)[-params.normalize.n_checkpoints :])[::-1]
        drawn.append(figure(e, performance_of(loss, params.ldm.performance), loss))
    caption = FIGURE + (FIGURE_VALIDATION if scored else "")
    return [Section("doses", "Asked-for against obtained performance", [Figures(caption, drawn), table(shown, scored)])]


@styled
def figure(e: Evaluation, p: np.ndarray, loss: np.ndarray) -> Image:
    """Loss by dose, and below it the validation score where there is one; p and loss [N] of the checkpoints."""
    shown = {"loss": "loss on held-out rows"} | ({"validation": e.label} if is_scored(e) else {})
    fig, axes = images.figure(0.8 + 1.9 * len(shown), len(shown))
    axes[0].plot(p, loss, color=colour("original"), lw=1.5, label="checkpoints")
    ours, c = samples(e), colour(OURS)
    x = ours["asked"] + 0.02 * images.jitter(ours["candidate"])
    for ax, (y, label) in zip(axes, shown.items(), strict=True):
        ax.scatter(x, ours[y], s=11, color=c, alpha=0.5, linewidths=0)
        means, line = ours.groupby("asked")[y].mean(), f"-{marker(OURS)}"
        ax.plot(means, line, color=c, lw=1.6, ms=4, mec=LIGHT["panel"], mew=0.7, label="condpdiff, mean")
        ax.axhline(_soup(e, y), color=colour("soup"), lw=1, ls=DASHED, label="soup")
        ax.set_ylabel(label)
    if is_scored(e):
        axes[1].axhline(e.values("original").mean(), color=colour("original"), lw=1.5)
    axes[0].set_title(e.name)
    axes[-1].set_xlabel("performance asked for, p")
    alt = f"{e.name}: loss of samples by asked-for performance; Spearman correlation {number(correlation(e))}"
    return images.image(fig, f"dose-{e.name}", alt, legend=3)


def table(shown: list[Evaluation], scored: bool) -> Table:
    """Correlation, means at three doses (a dash for one that was not asked for), and soup."""
    columns = ["task", "Spearman", *(f"loss, p = {p:g}" for p in SHOWN), "loss, soup"]
    columns += [f"validation, p = {p:g}" for p in SHOWN] if scored else []
    rows = []
    for e in shown:
        ours = samples(e)
        means = ours.groupby(ours["asked"].round(6))[["loss", "validation"]].mean().reindex(SHOWN)
        cells = [number(correlation(e)), *(number(x, 3) for x in [*means["loss"], _soup(e, "loss")])]
        rows.append([e.name, *cells, *(number(x, 1) for x in means["validation"] if scored)])
    return Table(TABLE + (TABLE_VALIDATION if scored else ""), columns, rows)


def is_scored(e: Evaluation) -> bool:
    """The doses' samples have a validation score beside their loss."""
    return not e.racing and bool(e.doses["validation"].notna().any())


def correlation(e: Evaluation) -> float:
    """Spearman's, of the performance asked for with the negative loss; losses that are not numbers are left out."""
    return compare.correlation(samples(e)["asked"], -samples(e)["loss"])


def samples(e: Evaluation) -> pd.DataFrame:
    """The doses without the soup."""
    return e.doses[e.doses["arm"] == OURS]


def _soup(e: Evaluation, column: str) -> float:
    return float(e.doses.loc[e.doses["arm"] == "soup", column].iloc[0])
