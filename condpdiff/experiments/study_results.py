"""What a study's experiments and the paper say: values over seeds beside the paper's, and what the rows cost."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from condpdiff.experiments.finished import AVERAGE, Experiment, experiments, lock_at
from condpdiff.experiments.study_plan import Row, Study
from condpdiff.report.blocks import Table, markdown_table, number, signed
from condpdiff.report.studies_section import COLUMNS

WHAT = {"condpdiff_mean": "Mean over all generated candidates", "condpdiff": "Selected candidate"}
"""Ours: the mean over all candidates, which the luck of a selection does not move, and the selected candidate."""
REFERENCES = {"condpdiff_mean": ("original_mean", "soup"), "condpdiff": ("original", "soup")}
IN_CSV = ("condpdiff", "condpdiff_mean", "gaussian", "original", "original_mean", "soup")


@dataclass(frozen=True)
class Results:
    """A study's experiments that are there."""

    study: Study
    found: dict[str, Experiment]  # name of a run -> its experiment, whatever that is called
    taken: list[str]  # names of runs that are missing, and whose name has other settings

    def runs(self, row: Row) -> dict[int, Experiment]:
        """Seed -> experiment."""
        return {seed: self.found[run.name] for seed, run in row.runs.items() if run.name in self.found}

    @cached_property
    def values(self) -> pd.DataFrame:
        """(row, seed, task or AVERAGE) x arm, in the order of the study."""
        tables = {(row.name, seed): e.values for row in self.study.rows for seed, e in self.runs(row).items()}
        nothing = pd.DataFrame(index=pd.MultiIndex.from_tuples([], names=["row", "seed", "task"]))
        return pd.concat(tables, names=["row", "seed", "task"], sort=False) if tables else nothing

    @cached_property
    def paper(self) -> dict[tuple[str, str, str], float]:
        """(row, arm, the paper's name of the task, or AVERAGE) -> what the paper reports.

        The csv has either a column an arm and one that names the task, or a column a task, of condpdiff alone.
        """
        if self.study.paper is None:
            return {}
        lines = pd.read_csv(self.study.paper, comment="#", dtype=str, keep_default_na=False)
        values = {}
        for row in (row for row in self.study.rows if row.paper):
            keys = {key: str(value) for key, value in (row.paper or {}).items()}
            own = lines[(lines[list(keys)] == pd.Series(keys)).all(axis=1)].drop(columns=list(keys))
            if "condpdiff" in own:
                own = own.set_index("task")[["condpdiff", "original", "soup"]].T.rename(columns={"Average": AVERAGE})
            of_arms = own.set_axis(["condpdiff", "original", "soup"][: len(own)]).apply(pd.to_numeric)
            of_arms[AVERAGE] = of_arms.pop(AVERAGE) if AVERAGE in of_arms else of_arms.mean(axis=1)
            for (arm, task), value in of_arms.stack().dropna().items():
                values[row.name, str(arm), str(task)] = value
        return values

    @property
    def of_families(self) -> bool:
        """Values are then shares of the gap between mean soup and a member's own LoRA."""
        return any(task.members for row in self.study.rows for task in row.preset.tasks.values())

    @property
    def tasks(self) -> list[str]:
        """Of all rows, in the order of params.yaml; of families the groups of members that a report tells apart."""
        if self.of_families:
            return [str(task) for task in self.values.index.unique("task") if task != AVERAGE]
        return list(dict.fromkeys(task for row in self.study.rows for task in row.preset.tasks))

    def ours(self, row: Row, arm: str, task: str = AVERAGE) -> tuple[float, float]:
        """Mean over seeds and sample standard deviation; NaN if no experiment of the row has it, or a single one."""
        values = self.values.droplevel("seed")
        seeds = values[values.index.isin([(row.name, task)])].get(arm, pd.Series(dtype=float))
        return seeds.mean(), seeds.std()

    def theirs(self, row: Row, arm: str, task: str = AVERAGE) -> float:
        """The paper's value of the arm that one of ours answers; NaN where it has none."""
        return self.paper.get((row.name, arm.removesuffix("_mean"), task), math.nan)


def read(study: Study) -> Results:
    """Look a study's experiments up; of equal settings the newest."""
    there = experiments()
    by_settings, names = {e.settings: e for e in there}, {e.name for e in there}
    found = {run.name: by_settings[run.settings] for run in study.runs if run.settings in by_settings}
    return Results(study, found, [run.name for run in study.runs if run.name in names - found.keys()])


def long_csv(results: Results) -> str:
    """One line a value: study, size, row, seed, arm, task, value; the paper's values stand in lines of their own."""
    arms = [arm for arm in IN_CSV if arm in results.values]
    values: Any = results.values[arms].rename_axis(columns="arm").round(2).stack().dropna()
    ours = values.rename("value").reset_index()
    paper = [(*where, f"{value:g}") for where, value in results.paper.items()]
    lines = pd.concat([ours.astype(str), pd.DataFrame(paper, columns=["row", "arm", "task", "paper"])])
    lines = lines.assign(study=results.study.name, size=results.study.size)
    return lines.reindex(columns=COLUMNS).to_csv(index=False, lineterminator="\n")


def markdown(results: Results) -> str:
    """What is shown of a study, for a terminal and for docs/studies.md."""
    study = results.study
    shown = [f"**{study.title}** ({study.size} size)", f"The paper: {study.claim}"]
    arms = [arm for arm in WHAT if any(not math.isnan(results.ours(row, arm)[0]) for row in study.rows)]
    tables = [_scores(results, arm) for arm in arms or ["condpdiff"]]
    shown += [part for table in tables for part in (markdown_table(table), table.caption)]
    if missing := len(study.runs) - len(results.found):
        size = "" if study.size == "embedded" else f" --size {study.size}"
        said = f"{missing} of {len(study.runs)} experiments are missing"
        shown.append(f"{said}; `condpdiff study run {study.name}{size}` runs them.")
    if results.taken:
        shown.append(f"Experiments of other settings have the names {', '.join(results.taken)}.")
    if results.found:
        baselines = sorted({e.baseline[:7] for e in results.found.values()})
        stages = _stages(results)
        shown += [markdown_table(stages), stages.caption, f"Run from commit {', '.join(baselines)}."]
    return "\n\n".join(shown) + "\n"


def _scores(results: Results, arm: str) -> Table:
    """Rows x tasks of one arm, our figures left of the paper's; `_references` stand under the row that they are of."""
    study, shared = results.study, results.study.shared
    tasks = [*results.tasks, AVERAGE]
    theirs = sorted(dict.fromkeys(task for *_, task in results.paper), key=AVERAGE.__eq__)
    metrics = {name: f" ({task.metrics[0]})" for row in reversed(study.rows) for name, task in row.preset.tasks.items()}
    columns = ["row", "seeds", *(f"{task}{metrics.get(task, '')}" for task in tasks)]
    columns += ["difference", "in seeds' std"] if shared else []
    columns += [f"paper: {task}" for task in theirs] + (["paper: difference"] if theirs and shared else [])
    lines: list[list[str]] = []
    for row in study.rows:
        count = len(results.runs(row))
        of = str(count) if count == len(row.runs) else f"{count} of {len(row.runs)}"
        for shown in (arm, *_references(results, row, arm)):
            own = shown == arm
            line = [row.name if count else f"{row.name} (missing)", of] if own else [f"{row.name}: {shown}", ""]
            for mean, std in (results.ours(row, shown, task) for task in tasks):
                line.append(number(mean) + (f" ± {std:.2f}" if std > 0 else ""))
            differences = _differences(results, row, shared, arm) if shared and own else [""] * 3
            line += differences[:2] if shared else []
            line += [number(results.theirs(row, shown, task)) for task in theirs]
            line += differences[2:] if theirs and shared else []
            lines.append(line)
    return Table(_caption(results, arm), columns, lines)


def _references(results: Results, row: Row, arm: str) -> list[str]:
    """Reference arms that are the row's own: their values, or the paper's, are not the shared row's."""

    def figures(of: Row | None, reference: str) -> list[str]:
        known = [results.ours(of, reference)[0], results.theirs(of, reference)] if of else [math.nan] * 2
        return [number(value) for value in known]

    shared = None if row is results.study.shared else results.study.shared
    return [r for r in REFERENCES[arm] if figures(row, r) not in (figures(None, r), figures(shared, r))]


def _differences(results: Results, row: Row, shared: Row, arm: str) -> list[str]:
    """The average minus the shared row's, in points and in standard deviations of its seeds; and the paper's."""
    default, std = results.ours(shared, arm)
    ours = results.ours(row, arm)[0] - default
    known = [ours, ours / std if std else math.nan, results.theirs(row, arm) - results.theirs(shared, arm)]
    return [signed(math.nan if row is shared else difference) for difference in known]


def _stages(results: Results) -> Table:
    """How many results of each stage the rows had to compute: those in no baseline's dvc.lock and in no row before."""
    known = {entry for e in results.found.values() for entry in lock_at(e.baseline).items()}
    entries = []
    for row in sorted(results.study.rows, key=lambda row: row is not results.study.shared):
        for experiment in results.runs(row).values():
            lock = lock_at(experiment.commit).items()
            entries += [(entry[0].partition("@")[0], row.name, entry not in known) for entry in lock]
            known |= lock
    frame, shared = pd.DataFrame(entries, columns=["stage", "row", "new"]), results.study.shared
    runs = frame.pivot_table("new", "stage", "row", "sum", fill_value=0, sort=False)
    first = [shared.name] if shared is not None and shared.name in runs else []
    others = runs.drop(columns=first)
    needed = {"other rows" if first else "rows": [f"{n} of {others.shape[1]} rows" for n in (others > 0).sum(axis=1)]}
    cells = runs[first].assign(**needed, results=others.sum(axis=1)).astype(str)
    caption = "Stage results that rows needed of their own: neither in dvc.lock of the commit that they were run from, "
    caption += "nor in a row before." + (f" {first[0]} is counted first, all its seeds together." if first else "")
    return Table.of(caption, "stage", cells)


def _caption(results: Results, arm: str) -> str:
    study, unit = results.study, "validation score in percent"
    if results.of_families:
        unit = "percent of the gap between mean soup and a member's own LoRA that is closed; "
        unit += "settings are chosen on tuning"
    said = [f"{WHAT[arm]} (`{arm}`): {unit}; mean ± standard deviation over seeds."]
    if (shared := study.shared) is not None:
        said.append(
            f"Difference: of the average from `{shared.name}`, the settings that all rows share, and the same in "
            "standard deviations of its seeds. original and soup stand under the row that they are of; other rows "
            f"have those of `{shared.name}`."
        )
        if (seeds := len(results.runs(shared))) > 1:
            from scipy.stats import t  # half a second

            reach = t.ppf(0.975, seeds - 1) * math.sqrt(1 + 1 / seeds)  # of one more seed from the mean of these
            said.append(
                f"At 95 %, seeds alone take a row of one seed to {reach:.1f} of these standard deviations "
                f"on either side (Student's t of {seeds} seeds): what lies within is not told from it."
            )
    if results.paper and arm == "condpdiff_mean":
        said.append("The paper's figures are of selected candidates.")
    return " ".join(said)
