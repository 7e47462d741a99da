"""Matplotlib figures as SVG: the same bytes for the same figure, and colours that follow the page's theme."""

import io
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    "condpdiff": ("#e8590c", "#ff8a3d"),
    "original": ("#2563eb", "#6ea8fe"),
    "soup": ("#0f8a5f", "#3ddc97"),
    "soup_16": ("#0891a8", "#38d4ea"),
    "gaussian": ("#7c3aed", "#b18cff"),
    "pca_gaussian": ("#c0268f", "#f472c8"),
    "checkpoint_noise": ("#4d7c0f", "#a3d94a"),
    "ae_reconstruction": ("#96720a", "#e0b93b"),
    "zero_decode": ("#7a5c48", "#c9a48c"),
    "majority": ("#8a94a6", "#7d8798"),
    "no_lora": ("#57606e", "#a8b1bf"),
}
LIGHT = {name: light for name, (light, _) in THEME.items()}
SERIES = ["original", "condpdiff", "soup", "gaussian", "ae_reconstruction", "pca_gaussian", "soup_16", "zero_decode"]
"""Colours of tasks, in the order of params.yaml; they come round again after eight."""
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
    def inline(self) -> str:
        """The `<svg>` element for the page: themed, without prolog, and with ids that no other figure has."""
        body = self.svg[self.svg.index("<svg") :]
        body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", body)  # HTML knows both namespaces
        body = re.sub(r' (id="|xlink:href="#)', rf" \1{self.name}-", body).replace("url(#", f"url(#{self.name}-")
        body = re.sub(r' (width|height)="[\d.]+pt"', "", body, count=2)
        body = body.replace("<svg", '<svg role="img" aria-label="' + _escape(self.alt) + '"', 1)
        body = body.replace(FONT, "inherit")
        return _themed(body)


def figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of so many inches with one pair of axes; call inside `style()`."""
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.add_subplot()


def style() -> AbstractContextManager[None]:
    """Context in which figures are made and saved."""
    return matplotlib.rc_context(RC)  # type: ignore[arg-type]


def image(fig: Figure, name: str, alt: str) -> Image:
    """Render a figure: no date, no version of the software, no random ids."""
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = re.sub(r"<!--.*?-->\s*|<!DOCTYPE[^>]*>\s*", "", buffer.getvalue(), flags=re.DOTALL)
    svg = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", FONT, svg)
    svg = "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
    return Image(name, alt, svg)


def _themed(svg: str) -> str:
    for name, light in LIGHT.items():
        svg = svg.replace(light, f"var(--{name})")
    return svg


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
