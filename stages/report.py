"""report: the small outputs of all other stages -> report/ (metrics, tables, figures, one page)."""

from pathlib import Path

from condpdiff.common.stage import run
from condpdiff.domain import module
from condpdiff.experiments.params import fingerprint, load_params
from condpdiff.report.make import make, make_unseen

DATA, OUT = Path("data"), Path("report")


def main() -> None:
    params, tasks = load_params()
    settings = fingerprint(params, tasks)
    if any(task.members for task in tasks.values()):
        make_unseen(OUT, params, tasks, DATA, settings)
    else:
        make(OUT, params, module("report").spec(tasks, DATA), settings)


if __name__ == "__main__":
    run(main)
