"""report: the small outputs of all other stages -> report/ (metrics, tables, figures, one page)."""

from pathlib import Path

from condpdiff.common.errors import run
from condpdiff.domain import module
from condpdiff.experiments.params import load_params


def main() -> None:
    module("report").make(*load_params(), Path("report"))


if __name__ == "__main__":
    run(main)
