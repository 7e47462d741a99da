"""A finished report as a self-contained HTML page and as Markdown."""

from typing import Any

import jinja2

from condpdiff.report.blocks import Table, inline_html, markdown_gallery, markdown_image, markdown_table
from condpdiff.report.page import Report
from condpdiff.report.svg import FONT, THEME


def html(report: Report) -> str:
    """The page: one small script that sorts tables, no request to any host."""
    return html_page("condpdiff.report", "page.html.j2", report=report)


def html_page(package: str, name: str, **content: Any) -> str:
    """A self-contained page from a package's template, which includes the style that all pages share."""
    env = _environment("condpdiff.report", package, autoescape=True)
    env.filters["inline"] = inline_html
    return env.get_template(name).render(theme=THEME, font=FONT, **content).rstrip() + "\n"


def markdown(report: Report) -> str:
    """`report.md`, with the figures beside it in `figures/`."""
    env = _environment("condpdiff.report", autoescape=False)
    env.filters |= {"table": markdown_table, "gallery": markdown_gallery, "image": markdown_image}
    return env.get_template("report.md.j2").render(report=report).rstrip() + "\n"


def brief(report: Report, table: Table) -> str:
    """`results.md`: verdict and results table, for the README and the terminal."""
    warnings = [f"> **Warning:** {w}\n" for w in report.warnings]
    return "\n".join([" ".join(report.verdict) + "\n", *warnings, markdown_table(table), "", table.caption]) + "\n"


def _environment(*packages: str, autoescape: bool) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package, "") for package in dict.fromkeys(packages)]),
        autoescape=autoescape, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
