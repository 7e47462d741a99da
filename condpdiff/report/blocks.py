"""What a section of the report is made of; one content, rendered as HTML and as Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from condpdiff.report.png import Picture
from condpdiff.report.svg import Image


@dataclass(frozen=True)
class Table:
    """A table with a caption that says what each figure is; the first column names the row."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    bold: frozenset[tuple[int, int]] = frozenset()
    """(row, column) of the cells that stand out."""
    accent: frozenset[int] = frozenset()
    """Rows that stand out: our method."""
    foot: int = 0
    """So many last rows sum up those above; they stay there when a reader sorts the table."""
    numeric: bool = True
    """Right-align everything but the first column."""
    kind: str = "table"


@dataclass(frozen=True)
class Figures:
    """One figure, or one for each task, under one caption."""

    caption: str
    images: Sequence[Image | Picture]
    wide: bool = False
    kind: str = "figures"


@dataclass(frozen=True)
class Gallery:
    """Pictures in a table with a caption; the first column names the row."""

    caption: str
    columns: list[str]
    rows: list[tuple[str, list[Picture]]]
    accent: int = -1
    """Column that stands out: our method."""
    kind: str = "gallery"


@dataclass(frozen=True)
class Text:
    """A paragraph; `**bold**` and `` `code` `` are understood."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Verbatim:
    """A file as it is, folded away in HTML."""

    title: str
    text: str
    kind: str = "verbatim"


Block = Table | Figures | Gallery | Text | Verbatim


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    blocks: list[Block] = field(default_factory=list)


def inline_html(text: str) -> Markup:
    """`**bold**` and `` `code` `` as HTML, the rest escaped."""
    html = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", html))


def markdown_table(table: Table) -> str:
    """Columns padded to one width, so that it also reads well in a terminal."""
    header, *rows = ([cell.replace("|", "\\|") for cell in row] for row in [table.columns, *table.rows])
    cells = [
        [f"**{cell}**" if (i, j) in table.bold else cell for j, cell in enumerate(row)] for i, row in enumerate(rows)
    ]
    widths = [max(3, *(len(row[j]) for row in [header, *cells])) for j in range(len(header))]
    right = [table.numeric and j > 0 for j in range(len(widths))]

    def line(row: list[str]) -> str:
        return "| " + " | ".join(_pad(c, w, r) for c, w, r in zip(row, widths, right, strict=True)) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)) + "|"
    return "\n".join([line(header), rule, *map(line, cells)])


def markdown_gallery(gallery: Gallery) -> str:
    """The pictures by the names of their files in `figures/`."""
    rows = [[name, *map(markdown_image, pictures)] for name, pictures in gallery.rows]
    return markdown_table(Table(gallery.caption, gallery.columns, rows, numeric=False))


def markdown_image(image: Image | Picture) -> str:
    """An image or picture that lies in `figures/`."""
    return f"![{image.alt.replace('[', '(').replace(']', ')')}](figures/{image.file})"


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
