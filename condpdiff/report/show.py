"""`python -m condpdiff.report.show`: the results table in the terminal, or with `--readme` in README.md."""

import re
import sys
import textwrap
from pathlib import Path

from condpdiff.common.errors import UserError, run

RESULTS, README = Path("report/results.md"), Path("README.md")


def main() -> None:
    """Verdict and results table; a UserError if there is no report yet, or README.md lacks its two comments."""
    if not RESULTS.is_file():
        raise UserError(f"{RESULTS}: no such file; run `dvc repro`")
    results = RESULTS.read_text(encoding="utf-8").strip()
    if "--readme" in sys.argv:
        block = r"(?s)(<!-- results -->\n).*?(<!-- /results -->)"
        text, found = re.subn(block, lambda m: f"{m[1]}{results}\n{m[2]}", README.read_text(encoding="utf-8"))
        if not found:
            raise UserError("README.md: no lines '<!-- results -->' and '<!-- /results -->' to put the results between")
        README.write_text(text, encoding="utf-8")
        return
    print()
    for line in results.splitlines():  # without marks of emphasis: a paragraph folded, a table's columns kept
        row = re.sub(r"\*\*([^*|]+)\*\*", r"    \1", line)
        print(row if line.startswith("|") else textwrap.fill(line.replace("**", ""), 100))
    print("\nThe whole report: report/index.html")


if __name__ == "__main__":
    run(main)
