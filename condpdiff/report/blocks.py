"""What a section of the report is made of; tables are rendered as HTML and as Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape
from tabulate import tabulate

from condpdiff.report.png import Picture
from condpdiff.report.svg import Image


@dataclass(frozen=True)
class Table:
    """A table with a caption that says what each figure is; the first column names the row."""

    caption: str
    columns: list[str]
    rows: Sequence[Sequence[str | Picture]]
    bold: frozenset[tuple[int, int]] = frozenset()  # (row, column) of the cells that stand out
    accent: frozenset[int] = frozenset()  # rows that stand out: our method
    foot: int = 0  # so many last rows sum up those above; they stay there when a reader sorts the table
    numeric: bool = True  # right-align everything but the first column
    pictures: bool = False  # the cells beside the names are pictures
    kind: str = "table"


@dataclass(frozen=True)
class Figures:
    """One figure, or one for each task, under one caption."""

    caption: str
    images: Sequence[Image | Picture]
    wide: bool = False
    kind: str = "figures"


@dataclass(frozen=True)
class Text:
    """A paragraph; `**bold**` and `` `code` `` are understood."""

    text: str
    file: str = ""  # name of a file that the text is; it is shown as it is, folded away
    kind: str = "text"


Block = Table | Figures | Text


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    blocks: list[Block]


def inline_html(cell: str | Picture) -> Markup:
    """`**bold**` and `` `code` `` as HTML, the rest escaped; a picture as an element."""
    if isinstance(cell, Picture):
        return cell.inline
    html = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(cell)))
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", html))


def markdown_table(table: Table) -> str:
    """Columns padded to one width, so that it also reads well in a terminal."""
    header, *rows = ([str(cell).replace("|", "\\|") for cell in row] for row in [table.columns, *table.rows])
    for i, j in table.bold:
        rows[i][j] = f"**{rows[i][j]}**"
    align = ["left", *["right" if table.numeric else "left"] * (len(header) - 1)]
    return tabulate(rows, header, tablefmt="pipe", colalign=align, disable_numparse=True)
