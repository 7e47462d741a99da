"""What a study's experiments and the paper say: values by row, arm and task, spread over seeds, stage runs."""

import csv
import io
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from condpdiff.experiments.finished import AVERAGE, Experiment, experiments, lock_at
from condpdiff.experiments.study_plan import Row, Run, Study

ARMS = ("condpdiff_mean", "condpdiff")
"""Ours: the mean over all candidates, which the luck of a selection does not move, and the selected candidate."""
Paper = dict[tuple[str, str, str], float]
"""(row, arm, the paper's name of the task, or `average`) -> the paper's value."""
REFERENCES = {"condpdiff_mean": ("original_mean", "soup"), "condpdiff": ("original", "soup")}
IN_CSV = ("condpdiff", "condpdiff_mean", "gaussian", "original", "original_mean", "soup")


@dataclass(frozen=True)
class Spread:
    """A value over seeds."""

    mean: float
    std: float | None
    """Sample standard deviation; None for a single seed."""
    n: int


@dataclass(frozen=True)
class Results:
    """A study's experiments that are there."""

    study: Study
    found: dict[str, Experiment]
    """Name of a run -> its experiment, whatever that is called."""
    taken: list[str]
    """Names of runs that are missing, and whose name has other settings."""

    def runs(self, row: Row) -> list[tuple[Run, Experiment]]:
        return [(run, self.found[run.name]) for run in row.runs if run.name in self.found]

    @property
    def tasks(self) -> list[str]:
        """Of all rows, in the order of params.yaml."""
        return list(dict.fromkeys(task for row in self.study.rows for task in row.runs[0].preset.tasks))

    @property
    def arms(self) -> list[str]:
        """Those of `ARMS` that some experiment has."""
        return [arm for arm in ARMS if any(self.value(row, arm, AVERAGE) for row in self.study.rows)]

    def value(self, row: Row, arm: str, task: str) -> Spread | None:
        """None if no experiment of the row has it."""
        values = [v for _, e in self.runs(row) if (v := e.values.get(task, {}).get(arm)) is not None]
        if not values:
            return None
        return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def read(study: Study) -> Results:
    """Look a study's experiments up; of equal settings the newest."""
    there = experiments()
    by_settings, names = {e.settings: e for e in there}, {e.name for e in there}
    runs = [run for row in study.rows for run in row.runs]
    found = {run.name: by_settings[run.settings] for run in runs if run.settings in by_settings}
    return Results(study, found, [r.name for r in runs if r.name not in found and r.name in names])


def paper_values(study: Study) -> Paper:
    """What the paper reports for a study's rows.

    The csv has either a column an arm and one that names the task, or a column a task, of condpdiff alone.
    """
    if study.paper is None:
        return {}
    lines = _read_csv(study.paper)
    values: Paper = {}
    for row in study.rows:
        if row.paper is None:
            continue
        of_row = [line for line in lines if all(_same(line.get(key, ""), v) for key, v in row.paper.items())]
        for line in of_row:
            if "condpdiff" in line:
                task = line.get("task") or line["style"]
                cells = {(arm, task): line.get(arm, "") for arm in ("condpdiff", "original", "soup")}
            else:
                cells = {("condpdiff", column): text for column, text in line.items() if column not in row.paper}
            for (arm, task), text in cells.items():
                if text:
                    values[row.name, arm, AVERAGE if task.lower() == AVERAGE else task] = float(text)
    for row_name, arm in dict.fromkeys((r, a) for r, a, _ in values):
        of_arm = [v for (r, a, _), v in values.items() if (r, a) == (row_name, arm)]
        values.setdefault((row_name, arm, AVERAGE), statistics.fmean(of_arm))
    return values


@dataclass(frozen=True)
class StageRuns:
    """How many stage results each row had to compute: those in no baseline's dvc.lock and in no row before it."""

    stages: list[str]
    """In the order of dvc.lock, without tasks."""
    rows: dict[str, Counter[str]]
    """Rows that are there, the shared settings' first -> stage -> results of its own."""


def stage_runs(results: Results) -> StageRuns:
    """Count by dvc.lock at the experiments' commits."""
    rows = sorted(results.study.rows, key=lambda row: not row.shared)
    baselines = {e.baseline: lock_at(e.baseline) for e in results.found.values()}
    known = {entry for lock in baselines.values() for entry in lock.items()}
    counts: dict[str, Counter[str]] = {}
    stages: dict[str, None] = {}
    for row in rows:
        runs = results.runs(row)
        if not runs:
            continue
        counts[row.name] = Counter()
        for _, experiment in runs:
            lock = experiment.lock
            stages |= dict.fromkeys(name.partition("@")[0] for name in lock)
            counts[row.name].update(name.partition("@")[0] for name, _ in lock.items() - known)
            known |= lock.items()
    return StageRuns(list(stages), counts)


def long_csv(results: Results) -> str:
    """One line a value: study, size, row, seed, arm, task, value; the paper's values stand in lines of their own."""
    study, out = results.study, io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["study", "size", "row", "seed", "arm", "task", "value", "paper"])
    for row in study.rows:
        for run, experiment in results.runs(row):
            for task, arms in experiment.values.items():
                for arm in (arm for arm in IN_CSV if arm in arms):
                    cells = [study.name, study.size, row.name, run.seed, arm, task, round(arms[arm], 2), ""]
                    writer.writerow(cells)
    for (row_name, arm, task), value in paper_values(study).items():
        writer.writerow([study.name, study.size, row_name, "", arm, task, "", f"{value:g}"])
    return out.getvalue()


def _read_csv(path: Path) -> list[dict[str, str]]:
    lines: Iterable[str] = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _same(text: str, value: str | float) -> bool:
    """A csv's cell and a value of a study's file: `1` is 1.0."""
    if isinstance(value, str):
        return text == value
    try:
        return float(text) == value
    except ValueError:
        return False
