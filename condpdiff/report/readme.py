"""`python -m condpdiff.report.readme`: put the newest results between README.md's `<!-- results -->` comments."""

import re
from pathlib import Path

from condpdiff.common.errors import UserError, run
from condpdiff.report.show import read_results

BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)


def refresh(readme: str, results: str) -> str:
    """README text with `results` between the two comments; a UserError if they are not there."""
    if not BLOCK.search(readme):
        raise UserError("README.md: no lines '<!-- results -->' and '<!-- /results -->' to put the results between")
    return BLOCK.sub(lambda m: f"{m[1]}{results}\n{m[2]}", readme)


def main() -> None:
    """Rewrite README.md in place."""
    path = Path("README.md")
    path.write_text(refresh(path.read_text(encoding="utf-8"), read_results()), encoding="utf-8")


if __name__ == "__main__":
    run(main)
