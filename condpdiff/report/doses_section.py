"""Asked-for against obtained performance: do samples get better as better ones are asked for?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from condpdiff.report import compare, svg
from condpdiff.report.arms import OURS
from condpdiff.report.blocks import Block, Figures, Section, Table
from condpdiff.report.compare import number
from condpdiff.report.evaluation import Evaluation
from condpdiff.report.figures import DASHED, cloud, colour
from condpdiff.report.readers import read_csv
from condpdiff.report.spec import Settings, Spec
from condpdiff.report.svg import Image, styled

SHOWN = [0.0, 0.5, 1.0]
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


def with_doses(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The tasks that samples of asked-for performance were scored of."""
    return [e for e in evaluations if len(e.doses)]


def frame(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """task, asked, candidate, loss, validation: every dose's candidates of all tasks, for `dvc plots`."""
    columns = ["task", "asked", "candidate", "loss", "validation"]
    parts = [_samples(e).assign(task=e.name)[columns] for e in with_doses(evaluations)]
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns)


def sections(spec: Spec, params: Settings) -> list[Section]:
    """Nothing where no performance was asked for; the loss of the checkpoints is in `data/performance/`."""
    if not (shown := with_doses(spec.evaluations)):
        return []
    scored, images = all(e.doses_scored for e in shown), []
    for e in shown:
        zoo = read_csv(spec.data / "performance" / f"{e.name}.csv", ["checkpoint", "loss"])["loss"]
        last = zoo.to_numpy(dtype=np.float64)[-params.normalize.n_checkpoints :]
        images.append(figure(e, zoo_curve(last, params.ldm.performance)))
    blocks: list[Block] = [Figures(FIGURE + (FIGURE_VALIDATION if scored else ""), images), table(shown, scored)]
    return [Section("doses", "Asked-for against obtained performance", blocks)]


def zoo_curve(loss: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """p and loss [N] of the checkpoints, worst first.

    Args:
        kind: `ldm.performance`, how p comes from the loss: `rank` or `loss`.
    """
    from condpdiff.zoo.performance import performance_of  # scipy.stats: half a second

    loss = np.sort(loss)[::-1]
    return performance_of(loss, kind), loss


@styled
def figure(e: Evaluation, checkpoints: tuple[np.ndarray, np.ndarray]) -> Image:
    """Loss by dose, and below it the validation score where there is one."""
    shown = {"loss": "loss on held-out rows"} | ({"validation": e.label} if e.doses_scored else {})
    fig, axes = svg.figure(0.8 + 1.9 * len(shown), len(shown))
    axes[0].plot(*checkpoints, color=colour("original"), lw=1.5, label="checkpoints")
    for ax, (y, label) in zip(axes, shown.items(), strict=True):
        cloud(ax, _samples(e), "asked", y, OURS, "condpdiff, mean")
        ax.axhline(_soup(e, y), color=colour("soup"), lw=1, ls=DASHED, label="soup")
        ax.set_ylabel(label)
    if e.doses_scored:
        axes[1].axhline(float(e.values("original").mean()), color=colour("original"), lw=1.5)
    axes[0].set_title(e.name)
    axes[-1].set_xlabel("performance asked for, p")
    alt = f"{e.name}: loss of samples by asked-for performance; Spearman correlation {number(correlation(e))}"
    return svg.image(fig, f"dose-{e.name}", alt, legend=3)


def table(shown: list[Evaluation], scored: bool) -> Table:
    """Correlation, means at three doses (a dash for one that was not asked for), and soup."""
    columns = ["task", "Spearman", *(f"loss, p = {p:g}" for p in SHOWN), "loss, soup"]
    columns += [f"validation, p = {p:g}" for p in SHOWN] if scored else []
    rows = []
    for e in shown:
        samples = _samples(e)
        means = samples.groupby(samples["asked"].round(6))[["loss", "validation"]].mean().reindex(SHOWN)
        cells = [number(correlation(e)), *(number(x, 3) for x in [*means["loss"], _soup(e, "loss")])]
        rows.append([e.name, *cells, *(number(x, 1) for x in means["validation"] if scored)])
    return Table(TABLE + (TABLE_VALIDATION if scored else ""), columns, rows)


def correlation(e: Evaluation) -> float:
    """Spearman's, of the performance asked for with the negative loss; losses that are not numbers are left out."""
    asked, loss = (_samples(e)[c].to_numpy(dtype=np.float64) for c in ("asked", "loss"))
    return compare.correlation(asked, -loss)


def unscored(e: Evaluation) -> int:
    """Doses' samples whose loss is not a number."""
    return int(_samples(e)["loss"].isna().sum())


def _samples(e: Evaluation) -> pd.DataFrame:
    return e.doses[e.doses["arm"] == OURS]


def _soup(e: Evaluation, column: str) -> float:
    return float(e.doses.loc[e.doses["arm"] == "soup", column].iloc[0])
