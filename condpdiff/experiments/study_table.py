"""A study as a page: its tables beside the paper's figures, and what its rows cost, as Markdown."""

import math

import pandas as pd

from condpdiff.experiments.finished import AVERAGE
from condpdiff.experiments.study_plan import Row
from condpdiff.experiments.study_results import REFERENCES, Paper, Results, paper_values, stage_runs
from condpdiff.report.blocks import Table, markdown_table
from condpdiff.report.compare import number, signed

WHAT = {"condpdiff_mean": "Mean over all generated candidates", "condpdiff": "Selected candidate"}


def markdown(results: Results) -> str:
    """What is shown of a study, for a terminal and for docs/studies.md."""
    study = results.study
    shown = [f"**{study.title}** ({study.size} size)", f"The paper: {study.claim}"]
    for table in (_scores(results, arm) for arm in results.arms or ["condpdiff"]):
        shown += [markdown_table(table), table.caption]
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
    """Rows x tasks of one arm, our figures left of the paper's; original and soup stand under the row they are of.

    A row without lines of its own for them has the shared row's.
    """
    study, shared, paper = results.study, results.study.shared, paper_values(results.study)
    tasks, theirs = [*results.tasks, AVERAGE], sorted(dict.fromkeys(task for *_, task in paper), key=AVERAGE.__eq__)
    columns = ["row", "seeds", *(f"{t} ({m})" if (m := _metric(results, t)) else t for t in tasks)]
    columns += ["difference", "in seeds' std"] if shared else []
    columns += [f"paper: {task}" for task in theirs] + (["paper: difference"] if theirs and shared else [])
    lines: list[list[str]] = []
    for row in study.rows:
        count = len(results.runs(row))
        of = str(count) if count == len(row.runs) else f"{count} of {len(row.runs)}"
        for shown in (arm, *_references(results, row, arm, paper)):
            own = shown == arm
            line = [row.name if count else f"{row.name} (missing)", of] if own else [f"{row.name}: {shown}", ""]
            line += [_cell(*results.value(row, shown, task)) for task in tasks]
            differences = _differences(results, row, shared, arm, paper) if shared and own else [""] * 3
            line += differences[:2] if shared else []
            line += [number(_published(paper, row, shown, task)) for task in theirs]
            line += differences[2:] if theirs and shared else []
            lines.append(line)
    return Table(_caption(results, arm, bool(theirs)), columns, lines)


def _references(results: Results, row: Row, arm: str, paper: Paper) -> list[str]:
    """Reference arms that are the row's own: their values, or the paper's, are not the shared row's."""

    def figures(of: Row, reference: str) -> list[str]:
        return [number(results.value(of, reference, AVERAGE)[0]), number(_published(paper, of, reference, AVERAGE))]

    shared, unknown = results.study.shared or row, [number(math.nan)] * 2
    others = {r: unknown if shared is row else figures(shared, r) for r in REFERENCES[arm]}
    return [r for r in REFERENCES[arm] if figures(row, r) not in (unknown, others[r])]


def _differences(results: Results, row: Row, shared: Row, arm: str, paper: Paper) -> list[str]:
    """The average minus the shared row's, in points and in standard deviations of its seeds; and the paper's."""
    default, std = results.value(shared, arm, AVERAGE)
    ours = results.value(row, arm, AVERAGE)[0] - default
    theirs = _published(paper, row, arm, AVERAGE) - _published(paper, shared, arm, AVERAGE)
    known = [ours, ours / std if std else math.nan, theirs]
    return [signed(math.nan if row.shared else difference) for difference in known]


def _stages(results: Results) -> Table:
    """How many results of each stage the rows had to compute."""
    runs, shared = pd.DataFrame(stage_runs(results)).fillna(0).astype(int), results.study.shared
    first = [shared.name] if shared is not None and shared.name in runs else []
    others = runs.drop(columns=first)
    table = runs[first].assign(rows=[f"{n} of {others.shape[1]} rows" for n in (others > 0).sum(axis=1)])
    lines = table.assign(results=others.sum(axis=1)).astype(str).reset_index().to_numpy().tolist()
    caption = "Stage results that rows needed of their own: neither in dvc.lock of the commit that they were run from, "
    caption += "nor in a row before." + (f" {first[0]} is counted first, all its seeds together." if first else "")
    return Table(caption, ["stage", *first, "other rows" if first else "rows", "results"], lines)


def _caption(results: Results, arm: str, paper: bool) -> str:
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
    if all(row.preset.params.eval.candidates == 1 for row in study.rows):
        said.append("original is the last checkpoint alone.")
    if paper and study.size == "embedded":
        said.append("The paper's tasks and model are its own.")
    if paper and arm == "condpdiff_mean":
        said.append("The paper's figures are of selected candidates.")
    return " ".join(said)


def _metric(results: Results, task: str) -> str:
    """What a task's values are: the first metric of its file."""
    presets = (row.preset for row in results.study.rows)
    return next((str(p.tasks[task].metrics[0]) for p in presets if task in p.tasks), "")


def _published(paper: Paper, row: Row, arm: str, task: str) -> float:
    """The paper's value of the arm that one of ours answers."""
    return paper.get((row.name, arm.removesuffix("_mean"), task), math.nan)


def _cell(mean: float, std: float) -> str:
    return number(mean) + (f" ± {std:.2f}" if std > 0 else "")
