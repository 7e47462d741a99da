"""A finished report as a self-contained HTML page and as Markdown."""

from importlib import resources
from typing import Any

import jinja2

from condpdiff.report.blocks import Table, inline_html, markdown_gallery, markdown_image, markdown_table
from condpdiff.report.page import Report
from condpdiff.report.svg import FONT, THEME


def html(report: Report) -> str:
    """The page: one small script that sorts tables, no request to any host."""
    env = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    env.filters["inline"] = inline_html
    return _render(env, "page.html.j2", report, theme=THEME, font=FONT)


def markdown(report: Report) -> str:
    """`report.md`, with the figures beside it in `figures/`."""
    env = jinja2.Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    env.filters |= {"table": markdown_table, "gallery": markdown_gallery, "image": markdown_image}
    return _render(env, "report.md.j2", report)


def brief(report: Report, table: Table) -> str:
    """`results.md`: verdict and results table, for the README and the terminal."""
    warnings = [f"> **Warning:** {w}\n" for w in report.warnings]
    return "\n".join([" ".join(report.verdict) + "\n", *warnings, markdown_table(table), "", table.caption]) + "\n"


def _render(env: jinja2.Environment, name: str, report: Report, **more: Any) -> str:
    template = resources.files("condpdiff.report").joinpath(name).read_text(encoding="utf-8")
    return env.from_string(template).render(report=report, **more).rstrip() + "\n"
