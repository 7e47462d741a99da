"""What a study's experiments and the paper say: values by row, arm and task, spread over seeds, stage runs."""

import csv
import io
import math
from collections import Counter
from dataclasses import dataclass

import pandas as pd

from condpdiff.experiments.finished import AVERAGE, Experiment, experiments, lock_at
from condpdiff.experiments.study_plan import Row, Study

ARMS = ("condpdiff_mean", "condpdiff")
"""Ours: the mean over all candidates, which the luck of a selection does not move, and the selected candidate."""
REFERENCES = {"condpdiff_mean": ("original_mean", "soup"), "condpdiff": ("original", "soup")}
IN_CSV = ("condpdiff", "condpdiff_mean", "gaussian", "original", "original_mean", "soup")
Paper = dict[tuple[str, str, str], float]  # (row, arm, the paper's name of the task, or `average`) -> the paper's value


@dataclass(frozen=True)
class Results:
    """A study's experiments that are there."""

    study: Study
    found: dict[str, Experiment]  # name of a run -> its experiment, whatever that is called
    taken: list[str]  # names of runs that are missing, and whose name has other settings

    def runs(self, row: Row) -> dict[int, Experiment]:
        """Seed -> experiment."""
        return {seed: self.found[run.name] for seed, run in row.runs.items() if run.name in self.found}

    @property
    def of_families(self) -> bool:
        """Values are then shares of the gap between mean soup and a member's own LoRA."""
        return any(task.members for row in self.study.rows for task in row.preset.tasks.values())

    @property
    def tasks(self) -> list[str]:
        """Of all rows, in the order of params.yaml; of families the groups of members that a report tells apart."""
        if self.of_families:
            return list(dict.fromkeys(task for e in self.found.values() for task in e.values.index if task != AVERAGE))
        return list(dict.fromkeys(task for row in self.study.rows for task in row.preset.tasks))

    @property
    def arms(self) -> list[str]:
        """Those of `ARMS` that some experiment has."""
        return [arm for arm in ARMS if any(not math.isnan(self.value(row, arm, AVERAGE)[0]) for row in self.study.rows)]

    def value(self, row: Row, arm: str, task: str) -> tuple[float, float]:
        """Mean over seeds and sample standard deviation; NaN if no experiment of the row has it, or a single one."""
        tables = (e.values for e in self.runs(row).values())
        seeds = pd.Series([t.at[task, arm] for t in tables if arm in t and task in t.index], dtype=float)
        return seeds.mean(), seeds.std()


def read(study: Study) -> Results:
    """Look a study's experiments up; of equal settings the newest."""
    there = experiments()
    by_settings, names = {e.settings: e for e in there}, {e.name for e in there}
    found = {run.name: by_settings[run.settings] for run in study.runs if run.settings in by_settings}
    return Results(study, found, [run.name for run in study.runs if run.name in names - found.keys()])


def paper_values(study: Study) -> Paper:
    """What the paper reports for a study's rows.

    The csv has either a column an arm and one that names the task, or a column a task, of condpdiff alone.
    """
    if study.paper is None:
        return {}
    lines = pd.read_csv(study.paper, comment="#", dtype=str, keep_default_na=False)
    values: Paper = {}
    for row in (row for row in study.rows if row.paper):
        keys = {key: str(value) for key, value in (row.paper or {}).items()}
        own = lines[(lines[list(keys)] == pd.Series(keys)).all(axis=1)]
        if "condpdiff" in own:
            of_arms = own.set_index("task")[["condpdiff", "original", "soup"]].T.rename(columns={"Average": AVERAGE})
        else:
            of_arms = own.drop(columns=list(keys)).set_axis(["condpdiff"])
        of_arms = of_arms.apply(pd.to_numeric)
        of_arms[AVERAGE] = of_arms.pop(AVERAGE) if AVERAGE in of_arms else of_arms.mean(axis=1)
        for arm, of_tasks in of_arms.iterrows():
            values |= {(row.name, str(arm), str(task)): value for task, value in of_tasks.dropna().items()}
    return values


def stage_runs(results: Results) -> dict[str, Counter[str]]:
    """How many stage results each row had to compute: those in no baseline's dvc.lock and in no row before it.

    Returns:
        Rows that are there, the shared settings' first -> stage, in the order of dvc.lock and without its task ->
        results of its own.
    """
    known = {entry for e in results.found.values() for entry in lock_at(e.baseline).items()}
    counts: dict[str, Counter[str]] = {}
    for row in sorted(results.study.rows, key=lambda row: not row.shared):
        for experiment in results.runs(row).values():
            own, lock = counts.setdefault(row.name, Counter()), lock_at(experiment.commit)
            for entry in lock.items():
                own[entry[0].partition("@")[0]] += entry not in known
            known |= lock.items()
    return counts


def long_csv(results: Results) -> str:
    """One line a value: study, size, row, seed, arm, task, value; the paper's values stand in lines of their own."""
    study, out = results.study, io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["study", "size", "row", "seed", "arm", "task", "value", "paper"])
    for row in study.rows:
        for seed, experiment in results.runs(row).items():
            for task, arms in experiment.values.round(2).iterrows():
                for arm in (arm for arm in IN_CSV if not math.isnan(arms.get(arm, math.nan))):
                    writer.writerow([study.name, study.size, row.name, seed, arm, task, arms[arm], ""])
    for (row_name, arm, task), value in paper_values(study).items():
        writer.writerow([study.name, study.size, row_name, "", arm, task, "", f"{value:g}"])
    return out.getvalue()
