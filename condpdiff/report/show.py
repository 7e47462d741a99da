"""`python -m condpdiff.report.show`: the results table in the terminal, and where the report lies."""

import re
import textwrap
from pathlib import Path

from condpdiff.common.errors import UserError, run

RESULTS = Path("report/results.md")


def read_results() -> str:
    """Verdict and results table; a UserError if there is no report yet."""
    if not RESULTS.is_file():
        raise UserError(f"{RESULTS}: no such file; run `dvc repro`")
    return RESULTS.read_text(encoding="utf-8").strip()


def main() -> None:
    """Print them without marks of emphasis: a paragraph folded, a table's columns still under each other."""
    print()
    for line in read_results().splitlines():
        row = re.sub(r"\*\*([^*|]+)\*\*", r"    \1", line)
        print(row if line.startswith("|") else textwrap.fill(line.replace("**", ""), 100))
    print("\nThe whole report: report/index.html")


if __name__ == "__main__":
    run(main)
