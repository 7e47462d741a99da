"""Figures and pictures: files in `figures/`, and elements of the page; figures follow the page's theme."""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import matplotlib
import numpy as np
import pandas as pd
import PIL.Image
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from condpdiff.report.arms import ARMS

# name: (light, dark). Figures are drawn in the light colours; inside the page each becomes `var(--name)`.
# No two light colours may be equal, or the page could not tell them apart.
THEME = {
    "panel": ("#fffffe", "#171b22"),
    "page": ("#f6f7f9", "#0e1116"),
    "ink": ("#1d2430", "#e4e8ee"),
    "muted": ("#667085", "#98a2b3"),
    "line": ("#e1e5eb", "#2b323d"),
    "good": ("#17803d", "#4ade80"),
    "bad": ("#c4262e", "#f87171"),
    "even": ("#a15c07", "#fbbf24"),
    **{name: arm.colours for name, arm in ARMS.items()},
}
LIGHT = {name: light for name, (light, _) in THEME.items()}
PANEL = 3.9  # inches: two abreast on a desktop, one on a phone, without unreadable text
LARGEST = 320  # pixels of a picture's longer side in the page; larger ones are shrunk there, and there alone
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
DASHED = (0, (4, 3))
styled = matplotlib.rc_context(fname=Path(__file__).with_name("report.mplstyle"))  # decorator of functions that draw


@dataclass(frozen=True)
class Image:
    """One figure, the SVG `figures/<name>.svg`."""

    name: str
    alt: str
    content: bytes
    suffix: ClassVar[str] = "svg"

    @property
    def inline(self) -> Markup:
        """The `<svg>` element for the page: themed, without prolog, and with ids that no other figure has."""
        body = re.sub(r"(?s)<!--.*?-->|^.*?(?=<svg)", "", self.content.decode())
        body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", body)  # HTML knows both namespaces
        body = re.sub(r' (id="|xlink:href="#)', rf" \1{self.name}-", body).replace("url(#", f"url(#{self.name}-")
        body = re.sub(r' (width|height)="[\d.]+pt"', "", body, count=2)
        body = body.replace("<svg", Markup('<svg role="img" aria-label="{}"').format(self.alt), 1)
        body = body.replace(FONT, "inherit")
        for name, light in LIGHT.items():
            body = body.replace(light, f"var(--{name})")
        return Markup(body)


class Picture(Image):
    """One generated or real image, the PNG `figures/<name>.png`."""

    suffix = "png"

    @property
    def inline(self) -> Markup:
        """The `<img>` element for the page, with the picture inside it."""
        shrunk = io.BytesIO()
        with PIL.Image.open(io.BytesIO(self.content)) as image:
            if max(image.size) > LARGEST:
                image.thumbnail((LARGEST, LARGEST), PIL.Image.Resampling.LANCZOS)
                image.save(shrunk, format="PNG")
        data = base64.b64encode(shrunk.getvalue() or self.content).decode("ascii")
        return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(self.alt, data)


def figure(height: float, rows: int = 1, columns: int = 1, width: float = PANEL) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many inches, with rows x columns of axes; a single column's share x."""
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, list(fig.subplots(rows, columns, sharex=columns == 1, squeeze=False).ravel())


def image(fig: Figure, name: str, alt: str, legend: int = 0) -> Image:
    """Render a figure without date, version or random ids, with a legend of so many columns below it."""
    if legend:
        fig.legend(*fig.axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=legend)
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Image(name, alt, re.sub(r"'DejaVu Sans'(, [^;\"]*)?", FONT, buffer.getvalue()).encode())


def colour(arm: str) -> str:
    return LIGHT.get(arm, LIGHT["muted"])


def marker(arm: str) -> str:
    return ARMS[arm].marker if arm in ARMS else "o"


def jitter(numbers: np.ndarray | pd.Series) -> np.ndarray:
    """-1 to 1: evenly spread by the golden ratio, and not at random."""
    return ((np.asarray(numbers) * 0.618034) % 1) * 2 - 1


def named_rows(ax: Axes, names: list[str], bold: int | None, pad: float = 0.6) -> None:
    """Names in place of a y axis, the first one at the top."""
    ax.set_ylim(len(names) - 1 + pad, -pad)
    ax.set_yticks(range(len(names)), names)
    if bold is not None:
        ax.get_yticklabels()[bold].set_fontweight("bold")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
