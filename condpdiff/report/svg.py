"""Matplotlib figures as SVG: the same bytes for the same figure, and colours that follow the page's theme."""

import io
import re
from dataclasses import dataclass

import matplotlib
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
PANEL = 3.9
"""Inches: two abreast on a desktop, one on a phone, without unreadable text."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

RC = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "svg.hashsalt": "condpdiff",  # ids from content, not at random
    "font.family": "DejaVu Sans",  # ships with Matplotlib: the layout does not depend on the machine's fonts
    "font.size": 8.5,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,  # a task's name may hold a dollar sign
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.7,
    "xtick.color": LIGHT["line"],
    "ytick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["ink"],
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": LIGHT["panel"],
    "savefig.facecolor": LIGHT["panel"],
}


@dataclass(frozen=True)
class Image:
    """One figure of the report, `figures/<name>.svg`."""

    name: str
    alt: str
    svg: str

    @property
    def file(self) -> str:
        return f"{self.name}.svg"

    @property
    def inline(self) -> Markup:
        """The `<svg>` element for the page: themed, without prolog, and with ids that no other figure has."""
        body = self.svg[self.svg.index("<svg") :]
        body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", body)  # HTML knows both namespaces
        body = re.sub(r' (id="|xlink:href="#)', rf" \1{self.name}-", body).replace("url(#", f"url(#{self.name}-")
        body = re.sub(r' (width|height)="[\d.]+pt"', "", body, count=2)
        body = body.replace("<svg", Markup('<svg role="img" aria-label="{}"').format(self.alt), 1)
        body = body.replace(FONT, "inherit")
        for name, light in LIGHT.items():
            body = body.replace(light, f"var(--{name})")
        return Markup(body)


styled = matplotlib.rc_context(RC)  # type: ignore[arg-type]
"""Decorator of functions that draw."""


def figure(height: float, rows: int = 1, columns: int = 1, width: float = PANEL) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many inches, with rows x columns of axes; a single column's share x."""
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, list(fig.subplots(rows, columns, sharex=columns == 1, squeeze=False).ravel())


def image(fig: Figure, name: str, alt: str, legend: int = 0) -> Image:
    """Render a figure: no date, no version of the software, no random ids.

    Args:
        legend: columns of the legend below, which is of the first axes; 0: none.
    """
    if legend:
        handles = fig.axes[0].get_legend_handles_labels()
        fig.legend(*handles, loc="outside lower left", ncols=legend, handletextpad=0.3, columnspacing=1)
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = re.sub(r"<!--.*?-->\s*|<!DOCTYPE[^>]*>\s*", "", buffer.getvalue(), flags=re.DOTALL)
    svg = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", FONT, svg)
    svg = "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
    return Image(name, alt, svg)
