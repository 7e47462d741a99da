"""The paper's tables and figures as studies: what the tables in docs/studies say, beside the paper's own figures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from condpdiff.report.blocks import Block, Figures, Section, Table
from condpdiff.report.compare import signed
from condpdiff.report.figures import MARKERS, PANEL, colour
from condpdiff.report.parts import number
from condpdiff.report.readers import read_csv
from condpdiff.report.svg import LIGHT, Image, figure, image, style

GROUP = ["study", "size"]
COLUMNS = ["study", "size", "row", "seed", "arm", "task", "value", "paper"]
AVERAGE = "average"
STUDIES = Path("docs/studies")
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


def read_studies(folder: Path) -> pd.DataFrame:
    """All `folder/*.csv` in one frame of COLUMNS; lines of the paper's figures have no seed and no value.

    Raises:
        UserError: a file is broken, or lacks a column.
    """
    frames = [read_csv(path, COLUMNS)[COLUMNS] for path in sorted(folder.glob("*.csv"))]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def sections(studies: pd.DataFrame) -> list[Section]:
    """Nothing where no study was run."""
    blocks: list[Block] = [
        _table(str(study), str(size), rows) for (study, size), rows in studies.groupby(GROUP, sort=False)
    ]
    drawn = [plot(str(study), str(size), rows) for (study, size), rows in _measured(studies).groupby(GROUP, sort=False)]
    blocks += [Figures(FIGURES, drawn)] if drawn else []
    return [Section("studies", "Studies", blocks)] if blocks else []


def _measured(studies: pd.DataFrame) -> pd.DataFrame:
    """Each seed's average and its soup's; studies that were not run have the paper's alone."""
    averages = studies[(studies["task"] == AVERAGE) & studies["value"].notna()]
    ours, soup = (averages[averages["arm"] == arm] for arm in ("condpdiff_mean", "soup"))
    key = [*GROUP, "row", "seed"]
    return ours.merge(soup[[*key, "value"]], on=key, how="left", suffixes=("", "_soup"))


def plot(study: str, size: str, found: pd.DataFrame) -> Image:
    """A line a row: seeds, their mean, and the soup.

    Args:
        found: row, value and value_soup of each seed.
    """
    names = list(found["row"].unique())
    with style():
        fig, ax = figure(PANEL, 1.0 + 0.27 * len(names))
        for y, name in enumerate(names):
            rows = found[found["row"] == name]
            ours, soup = rows["value"].to_numpy(), rows["value_soup"].mean()
            ax.scatter(ours, np.full(len(ours), y), s=14, color=colour("condpdiff"), alpha=0.5, linewidths=0)
            ax.plot(soup, y, MARKERS["soup"], ms=5, color=colour("soup"), label="soup" if y == 0 else None)
            ax.plot(
                ours.mean(), y, MARKERS["condpdiff"], ms=5.5, color=colour("condpdiff"), mec=LIGHT["panel"], mew=0.7,
                label="condpdiff_mean" if y == 0 else None,
            )  # fmt: skip
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("average over tasks")
        ax.set_title(study)
        fig.legend(loc="outside lower left", ncols=2, columnspacing=1.2)
        means = found.groupby("row", sort=False)["value"].mean()
        said = ", ".join(f"{name} {value:.2f}" for name, value in means.items())
        return image(fig, f"study-{study}-{size}", f"{study}: condpdiff_mean of every row: {said}")


def _table(study: str, size: str, found: pd.DataFrame) -> Table:
    rows = []
    for name, of_row in found.groupby("row", sort=False):
        means, selected, soups = (_averages(of_row, arm, "value") for arm in ("condpdiff_mean", "condpdiff", "soup"))
        paper = _averages(of_row, "condpdiff", "paper")
        std = float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")
        cells = [number(x) for x in (_mean(means), std, _mean(selected), _mean(paper))]
        cells.insert(3, signed(_mean(means) - _mean(soups)) if means and soups else number(float("nan")))
        rows.append([str(name), str(max(len(means), len(selected))), *cells])
    caption = CAPTION.format(study=study, size=size)
    return Table(caption, ["row", "seeds", "condpdiff_mean", "std", "condpdiff", "minus soup", "paper"], rows)


def _averages(rows: pd.DataFrame, arm: str, column: str) -> list[float]:
    """An arm's averages over tasks, one a seed."""
    return rows.loc[(rows["arm"] == arm) & (rows["task"] == AVERAGE), column].dropna().tolist()


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
