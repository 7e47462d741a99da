"""A finished report as a self-contained HTML page, and its table of results as Markdown."""

from typing import Any

import jinja2

from condpdiff.report.blocks import inline_html, markdown_table
from condpdiff.report.page import Report
from condpdiff.report.svg import FONT, THEME


def html(report: Report) -> str:
    """The page: one small script that sorts tables, no request to any host."""
    return html_page("condpdiff.report", "page.html.j2", report=report)


def html_page(package: str, name: str, **content: Any) -> str:
    """A self-contained page from a package's template, which includes the style that all pages share."""
    packages = dict.fromkeys(["condpdiff.report", package])
    env = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(each, "") for each in packages]),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    env.filters["inline"] = inline_html
    return env.get_template(name).render(theme=THEME, font=FONT, **content).rstrip() + "\n"


def brief(report: Report) -> str:
    """`results.md`: verdict and results table, for the README and the terminal."""
    warnings = [f"> **Warning:** {w}\n" for w in report.warnings]
    table = markdown_table(report.table)
    return "\n".join([" ".join(report.verdict) + "\n", *warnings, table, "", report.table.caption]) + "\n"
