"""report: the small outputs of all other stages -> report/ (metrics, tables, figures, one page)."""

from pathlib import Path

from condpdiff.common.stage import run
from condpdiff.experiments.params import fingerprint, load_params
from condpdiff.report import page, unseen

DATA, OUT = Path("data"), Path("report")


def main() -> None:
    params, tasks = load_params()
    if any(task.members for task in tasks.values()):
        report = unseen.build(tasks, DATA, params.report.seed)
    else:
        report = page.build(tasks, DATA, params)
    page.write(OUT, report, fingerprint(params, tasks))


if __name__ == "__main__":
    run(main)
