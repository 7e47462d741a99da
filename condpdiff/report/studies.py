"""The paper's tables and figures as studies: what the tables in docs/studies say, beside the paper's own figures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from condpdiff.report.blocks import Block, Section, Table
from condpdiff.report.parts import number
from condpdiff.report.readers import read_csv

COLUMNS = ["study", "size", "row", "seed", "arm", "task", "value", "paper"]
AVERAGE = "average"
STUDIES = Path("docs/studies")
CAPTION = (
    "`{study}` at the size `{size}`, over the mean of its tasks: condpdiff_mean is the mean over all generated "
    "candidates, then over seeds, and std its sample standard deviation over seeds; condpdiff is the selected "
    "candidate, mean over seeds. The paper's figures are of other models and tasks: compare differences between rows."
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
        _table(str(study), str(size), rows) for (study, size), rows in studies.groupby(["study", "size"], sort=False)
    ]
    return [Section("studies", "Studies", blocks)] if blocks else []


def _table(study: str, size: str, found: pd.DataFrame) -> Table:
    rows = []
    for name, of_row in found.groupby("row", sort=False):
        means, selected = (_averages(of_row, arm, "value") for arm in ("condpdiff_mean", "condpdiff"))
        paper = _averages(of_row, "condpdiff", "paper")
        std = float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")
        cells = [number(x) for x in (_mean(means), std, _mean(selected), _mean(paper))]
        rows.append([str(name), str(max(len(means), len(selected))), *cells])
    caption = CAPTION.format(study=study, size=size)
    return Table(caption, ["row", "seeds", "condpdiff_mean", "std", "condpdiff", "paper"], rows)


def _averages(rows: pd.DataFrame, arm: str, column: str) -> list[float]:
    """An arm's averages over tasks, one a seed."""
    return rows.loc[(rows["arm"] == arm) & (rows["task"] == AVERAGE), column].dropna().tolist()


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
