"""`python -m condpdiff.report.show`: the results table in the terminal, and where the report lies."""

import re
import sys
import textwrap
from pathlib import Path

from condpdiff.common.errors import UserError, run

REPORT = Path("report")


def read_results() -> str:
    """`report/results.md`: verdict and results table; a UserError if there is no report yet."""
    path = REPORT / "results.md"
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `dvc repro`")
    return path.read_text(encoding="utf-8").strip()


def plain(markdown: str) -> str:
    """Without marks of emphasis, paragraphs folded, the table's columns still under each other."""
    lines = []
    for line in markdown.splitlines():
        if line.startswith("|"):
            lines.append(re.sub(r"\*\*([^*|]+)\*\*", r"    \1", line))
        else:
            lines += textwrap.wrap(line.replace("**", ""), 100) or [""]
    return "\n".join(lines)


def main() -> None:
    """Print what `report/results.md` says."""
    sys.stdout.write(f"\n{plain(read_results())}\n\nThe whole report: {REPORT / 'index.html'}\n")


if __name__ == "__main__":
    run(main)
