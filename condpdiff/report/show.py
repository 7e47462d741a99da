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


def plain(line: str) -> str:
    """A line without marks of emphasis: a paragraph folded, a table's columns still under each other."""
    if line.startswith("|"):
        return re.sub(r"\*\*([^*|]+)\*\*", r"    \1", line)
    return textwrap.fill(line.replace("**", ""), 100)


def main() -> None:
    """Print what `report/results.md` says."""
    shown = "\n".join(map(plain, read_results().splitlines()))
    sys.stdout.write(f"\n{shown}\n\nThe whole report: {REPORT / 'index.html'}\n")


if __name__ == "__main__":
    run(main)
