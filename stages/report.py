"""report: the small outputs of all other stages -> report/ (metrics, tables, figures, one page)."""

from pathlib import Path

from condpdiff.common.errors import run
from condpdiff.domain import module
from condpdiff.experiments.params import fingerprint, load_params
from condpdiff.report.make import make


def main() -> None:
    params, tasks = load_params()
    spec = module("report").spec(tasks, Path("data"))
    make(Path("report"), params, spec, fingerprint(params, tasks))


if __name__ == "__main__":
    run(main)
