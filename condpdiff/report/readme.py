"""`python -m condpdiff.report.readme`: put the newest results between README.md's `<!-- results -->` comments."""

import re
from pathlib import Path

from condpdiff.common.errors import UserError, run
from condpdiff.report.show import read_results

BLOCK = re.compile(r"(?s)(<!-- results -->\n).*?(<!-- /results -->)")


def main() -> None:
    """Rewrite README.md in place; a UserError if it lacks the two comments."""
    path, results = Path("README.md"), read_results()
    text, found = BLOCK.subn(lambda m: f"{m[1]}{results}\n{m[2]}", path.read_text(encoding="utf-8"))
    if not found:
        raise UserError("README.md: no lines '<!-- results -->' and '<!-- /results -->' to put the results between")
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run(main)
