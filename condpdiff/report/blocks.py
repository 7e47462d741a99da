"""What the report is made of, and how it becomes HTML and Markdown."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from tabulate import tabulate

from condpdiff.report.images import FONT, THEME, Image, Picture


@dataclass(frozen=True)
class Table:
    """The first column names the row; the caption says what each figure is."""

    caption: str
    columns: list[str]
    rows: Sequence[Sequence[str | Picture]]
    bold: frozenset[tuple[int, int]] = frozenset()  # (row, column) of the cells that stand out
    accent: frozenset[int] = frozenset()  # rows that stand out: our method
    foot: int = 0  # so many last rows sum up those above; they stay there when a reader sorts the table
    numeric: bool = True  # right-align everything but the first column
    pictures: bool = False  # the cells beside the names are pictures

    @classmethod
    def of(cls, caption: str, first: str, cells: pd.DataFrame, **more: Any) -> "Table":
        """Of cells whose index names the rows, under the heading `first`."""
        return cls(caption, [first, *cells], [list(row) for row in cells.itertuples(name=None)], **more)


@dataclass(frozen=True)
class Figures:
    """One figure, or one for each task, under one caption."""

    caption: str
    images: Sequence[Image]
    wide: bool = False


@dataclass(frozen=True)
class Text:
    """A paragraph; `**bold**` and `` `code` `` are understood."""

    text: str
    file: str = ""  # name of a file that the text is; it is shown as it is, folded away


Block = Table | Figures | Text


class Section(NamedTuple):
    id: str
    title: str
    blocks: list[Block]


class Report(NamedTuple):
    verdict: list[str]
    word: str  # beats | ties with | loses to: condpdiff and the best control
    tiles: list[tuple[str, str, str]]  # label, figure, note
    warnings: list[str]
    sections: list[Section]
    table: Table  # arms x tasks: what the README shows
    metrics: dict[str, Any]
    plots: dict[str, pd.DataFrame]  # what `dvc plots` draws: arms, doses, finetune_loss, finetune_validation

    @property
    def images(self) -> Iterator[Image]:
        for block in (b for s in self.sections for b in s.blocks):
            if isinstance(block, Figures):
                yield from block.images
            elif isinstance(block, Table):
                yield from (cell for row in block.rows for cell in row if isinstance(cell, Picture))

    @property
    def html(self) -> str:
        """A self-contained page: one small script that sorts tables, no request to any host."""
        options: Any = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
        loader = jinja2.PackageLoader("condpdiff.report", "")
        env = jinja2.Environment(loader=loader, autoescape=True, **options)
        env.filters["inline"] = _inline
        return env.get_template("page.html.j2").render(theme=THEME, font=FONT, report=self).rstrip() + "\n"

    @property
    def brief(self) -> str:
        """Verdict and results table, for the README and the terminal."""
        parts = [" ".join(self.verdict), *(f"> **Warning:** {w}" for w in self.warnings)]
        return "\n\n".join([*parts, markdown_table(self.table), self.table.caption]) + "\n"


def number(value: float, decimals: int = 2, sign: str = "") -> str:
    """A dash for what is not known, and never `-0.00`; `sign="+"` shows a plus too."""
    return "–" if math.isnan(value) else f"{round(float(value), decimals) + 0.0:{sign}.{decimals}f}".replace("-", "−")


def signed(value: float) -> str:
    """Two decimals, always with a sign."""
    return number(value, sign="+")


def best(values: np.ndarray) -> frozenset[tuple[int, int]]:
    """The cells of a table that hold the highest of their column of `values` [rows, columns beside the names]."""
    return frozenset((int(i), int(j) + 1) for i, j in np.argwhere(values == np.nanmax(values, axis=0)))


def markdown_table(table: Table) -> str:
    """Columns padded to one width, so that it also reads well in a terminal."""
    header, *rows = ([str(cell).replace("|", "\\|") for cell in row] for row in [table.columns, *table.rows])
    for i, j in table.bold:
        rows[i][j] = f"**{rows[i][j]}**"
    align = ["left", *["right" if table.numeric else "left"] * (len(header) - 1)]
    return tabulate(rows, header, tablefmt="pipe", colalign=align, disable_numparse=True)


def _inline(cell: str | Picture) -> Markup:
    """`**bold**` and `` `code` `` as HTML, the rest escaped; a picture as an element."""
    if isinstance(cell, Picture):
        return cell.inline
    html = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(cell)))
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", html))
