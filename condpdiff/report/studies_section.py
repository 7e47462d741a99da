"""The paper's tables and figures as studies: what the tables in docs/studies say, beside the paper's own figures."""

from pathlib import Path

import pandas as pd

from condpdiff.report.blocks import Block, Figures, Section, Table
from condpdiff.report.compare import number, signed
from condpdiff.report.evaluation import AVERAGE, read_csv
from condpdiff.report.images import LIGHT, Image, colour, figure, image, marker, named_rows, styled

COLUMNS = ["study", "size", "row", "seed", "arm", "task", "value", "paper"]
STUDIES = Path("docs/studies")
FRAME = STUDIES / "frame.csv"
OF_FAMILIES = ("styles",)  # their values are shares of a gap, which docs/studies.md alone shows
CAPTION = (
    "`{study}` at the size `{size}`, over the mean of its tasks: condpdiff_mean is the mean over all generated "
    "candidates, then over seeds, and std its sample standard deviation over seeds; condpdiff is the selected "
    "candidate, mean over seeds; minus soup is condpdiff_mean less the soup of the row's own checkpoints, which needs "
    "no generator. The paper's figures are of other models and tasks: compare differences between rows."
)
FIGURES = (
    "The same rows: condpdiff_mean of each seed (dots) and the mean over seeds (diamond), beside the soup of the row's "
    "checkpoints (square). Rows whose diamonds lie no further apart than one row's dots are not told apart."
)


def papers_variant(tasks: list[str], arm: str) -> tuple[pd.Series, int]:
    """An arm's score on each task in the paper's variant of the generator, mean over seeds, and how many seeds.

    Of the study `frame`; nothing where it has not been run on all these tasks.
    """
    rows = read_csv(FRAME, COLUMNS) if FRAME.is_file() else pd.DataFrame(columns=COLUMNS)
    rows = rows[(rows["row"] == "paper") & (rows["arm"] == arm) & rows["task"].isin(tasks)].dropna(subset="value")
    means = rows.groupby("task")["value"].mean()
    return means if set(means.index) == set(tasks) else means[:0], rows["seed"].nunique()


def sections() -> list[Section]:
    """All tables of `docs/studies`, and a figure of each that has been run; nothing where there is none."""
    found = [
        (str(study), str(size), rows)
        for path in sorted(STUDIES.glob("*.csv"))
        if path.stem not in OF_FAMILIES
        for (study, size), rows in read_csv(path, COLUMNS).groupby(["study", "size"], sort=False)
    ]
    drawn = [plot(*each) for each in found if len(_averages(each[2], "condpdiff_mean"))]
    blocks: list[Block] = [_table(*each) for each in found]
    blocks += [Figures(FIGURES, drawn)] if drawn else []
    return [Section("studies", "Studies", blocks)] if blocks else []


def _averages(rows: pd.DataFrame, arm: str, column: str = "value") -> pd.Series:
    """An arm's averages over tasks by row, one a seed; those that are not known are left out."""
    shown = rows[(rows["arm"] == arm) & (rows["task"] == AVERAGE)]
    return shown.set_index("row")[column].dropna()


@styled
def plot(study: str, size: str, rows: pd.DataFrame) -> Image:
    """A line a row of a study that has figures: seeds, their mean, and the soup."""
    ours, soup = (_averages(rows, arm) for arm in ("condpdiff_mean", "soup"))
    means = ours.groupby(level=0, sort=False).mean()
    names, soups = list(means.index), soup.groupby(level=0).mean().reindex(means.index)
    fig, (ax,) = figure(1.0 + 0.27 * len(names))
    ax.scatter(ours, [names.index(row) for row in ours.index], s=14, color=colour("condpdiff"), alpha=0.5, linewidths=0)
    for arm, values, label in (("soup", soups, "soup"), ("condpdiff", means, "condpdiff_mean")):
        c, edge = colour(arm), LIGHT["panel"]
        ax.plot(values, range(len(names)), marker(arm), ms=5.5, color=c, mec=edge, mew=0.7, label=label)
    named_rows(ax, names, bold=None)
    ax.set(xlabel="average over tasks", title=study)
    said = ", ".join(f"{name} {value:.2f}" for name, value in means.items())
    return image(fig, f"study-{study}-{size}", f"{study}: condpdiff_mean of every row: {said}", legend=2)


def _table(study: str, size: str, rows: pd.DataFrame) -> Table:
    lines = []
    for name, of_row in rows.groupby("row", sort=False):
        means, selected, soups = (_averages(of_row, arm) for arm in ("condpdiff_mean", "condpdiff", "soup"))
        paper, over = _averages(of_row, "condpdiff", "paper"), signed(means.mean() - soups.mean())
        cells = [number(means.mean()), number(means.std()), number(selected.mean()), over, number(paper.mean())]
        lines.append([str(name), str(max(len(means), len(selected))), *cells])
    columns = ["row", "seeds", "condpdiff_mean", "std", "condpdiff", "minus soup", "paper"]
    return Table(CAPTION.format(study=study, size=size), columns, lines)
