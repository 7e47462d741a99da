"""A study as a page: its tables beside the paper's figures, and what its rows cost, as Markdown and as HTML."""

import math

from condpdiff.experiments.finished import AVERAGE
from condpdiff.experiments.study_plan import Row
from condpdiff.experiments.study_results import REFERENCES, Paper, Results, Spread, paper_values, stage_runs
from condpdiff.report.blocks import Table, Text, html_page, markdown_table
from condpdiff.report.compare import signed

NONE = "–"
WHAT = {"condpdiff_mean": "Mean over all generated candidates", "condpdiff": "Selected candidate"}
Block = Table | Text


def blocks(results: Results) -> list[Block]:
    """What is shown of a study, top to bottom."""
    study = results.study
    shown: list[Block] = [Text(f"The paper: {study.claim}")]
    shown += [_scores(results, arm) for arm in results.arms or ["condpdiff"]]
    missing = [run.name for row in study.rows for run in row.runs.values() if run.name not in results.found]
    if missing:
        size = "" if study.size == "embedded" else f" --size {study.size}"
        said = f"{len(missing)} of {len(missing) + len(results.found)} experiments are missing"
        shown.append(Text(f"{said}; `condpdiff study run {study.name}{size}` runs them."))
    if results.taken:
        shown.append(Text(f"Experiments of other settings have the names {', '.join(results.taken)}."))
    if results.found:
        shown.append(_stages(results))
        baselines = sorted({e.baseline[:7] for e in results.found.values()})
        shown.append(Text(f"Run from commit {', '.join(baselines)}."))
    return shown


def markdown(results: Results) -> str:
    """For a terminal and for docs/studies.md."""
    parts = [f"**{results.study.title}** ({results.study.size} size)"]
    for block in blocks(results):
        parts += [block.text] if isinstance(block, Text) else [markdown_table(block), block.caption]
    return "\n\n".join(parts) + "\n"


def html(results: Results) -> str:
    """A self-contained page: no script, no request to any host."""
    return html_page("condpdiff.experiments", "study.html.j2", study=results.study, blocks=blocks(results))


def _scores(results: Results, arm: str) -> Table:
    """Rows x tasks of one arm, our figures left of the paper's; original and soup stand under the row they are of.

    A row without lines of its own for them has the shared row's.
    """
    study, shared, paper = results.study, results.study.shared, paper_values(results.study)
    tasks = [*results.tasks, AVERAGE]
    theirs = list(dict.fromkeys(task for _, _, task in paper if task != AVERAGE)) + ([AVERAGE] if paper else [])
    columns = ["row", "seeds", *(f"{t} ({m})" if (m := _metric(results, t)) else t for t in tasks)]
    columns += ["difference", "in seeds' std"] if shared else []
    columns += [f"paper: {task}" for task in theirs] + (["paper: difference"] if theirs and shared else [])

    lines: list[list[str]] = []
    accent = set()
    for row in study.rows:
        for shown in (arm, *_references(results, row, arm, paper)):
            own = shown == arm
            if own and row.shared:
                accent.add(len(lines))
            count = len(results.runs(row))
            of = str(count) if count == len(row.runs) else f"{count} of {len(row.runs)}"
            line = [row.name if count else f"{row.name} (missing)", of] if own else [f"{row.name}: {shown}", ""]
            line += [_cell(results.value(row, shown, task)) for task in tasks]
            if shared:
                line += _differences(results, row, shared, arm) if own else ["", ""]
            line += [_number(paper.get((row.name, published(shown), task))) for task in theirs]
            if theirs and shared:
                one, other = (paper.get((name, published(shown), AVERAGE)) for name in (row.name, shared.name))
                known = one is not None and other is not None and not row.shared
                line.append((signed((one or 0) - (other or 0)) if known else NONE) if own else "")
            lines.append(line)
    return Table(_caption(results, arm, bool(theirs)), columns, lines, accent=frozenset(accent))


def _references(results: Results, row: Row, arm: str, paper: Paper) -> list[str]:
    """Reference arms that are the row's own: their values, or the paper's, are not the shared row's."""
    shared = results.study.shared or row

    def values(of: Row, reference: str) -> tuple[float | None, float | None]:
        ours = results.value(of, reference, AVERAGE)
        return (None if ours is None else ours.mean), paper.get((of.name, published(reference), AVERAGE))

    own = {reference: values(row, reference) for reference in REFERENCES[arm]}
    return [r for r, v in own.items() if v != (None, None) and (shared is row or v != values(shared, r))]


def _differences(results: Results, row: Row, shared: Row, arm: str) -> list[str]:
    """The average minus the shared row's, in points and in standard deviations of that row's seeds."""
    ours, default = results.value(row, arm, AVERAGE), results.value(shared, arm, AVERAGE)
    if row.shared or ours is None or default is None:
        return [NONE, NONE]
    difference = ours.mean - default.mean
    return [signed(difference), signed(difference / default.std) if default.std else NONE]


def _stages(results: Results) -> Table:
    """How many results of each stage the rows had to compute."""
    runs, shared = stage_runs(results), results.study.shared
    first = shared.name if shared is not None and shared.name in runs else None
    others = [counts for row, counts in runs.items() if row != first]
    lines = []
    for stage in dict.fromkeys(stage for counts in runs.values() for stage in counts):
        needed = sum(counts[stage] > 0 for counts in others)
        own = [str(runs[first][stage])] if first else []
        lines.append([stage, *own, f"{needed} of {len(others)} rows", str(sum(counts[stage] for counts in others))])
    caption = "Stage results that rows needed of their own: neither in dvc.lock of the commit that they were run from, "
    caption += "nor in a row before." + (f" {first} is counted first, all its seeds together." if first else "")
    return Table(caption, ["stage", *([first, "other rows"] if first else ["rows"]), "results"], lines)


def _caption(results: Results, arm: str, paper: bool) -> str:
    study, unit = results.study, "validation score in percent"
    if results.of_families:
        unit = (
            "percent of the gap between mean soup and a member's own LoRA that is closed; settings are chosen on tuning"
        )
    text = f"{WHAT[arm]} (`{arm}`): {unit}"
    said = [f"{text}; mean ± standard deviation over seeds."]
    if (shared := study.shared) is not None:
        said.append(
            f"Difference: of the average from `{shared.name}`, the settings that all rows share, and the same in "
            "standard deviations of its seeds. original and soup stand under the row that they are of; other rows "
            f"have those of `{shared.name}`."
        )
        if (seeds := len(results.runs(shared))) > 1:
            said.append(
                f"At 95 %, seeds alone take a row of one seed to {_told_apart(seeds):.1f} of these standard deviations "
                f"on either side (Student's t of {seeds} seeds): what lies within is not told from it."
            )
    if all(row.preset.params.eval.candidates == 1 for row in study.rows):
        said.append("original is the last checkpoint alone.")
    if paper and study.size == "embedded":
        said.append("The paper's tasks and model are its own.")
    if paper and arm == "condpdiff_mean":
        said.append("The paper's figures are of selected candidates.")
    return " ".join(said)


def _told_apart(seeds: int) -> float:
    """How many of their standard deviations one more seed lies from the mean of `seeds`, in 19 cases of 20 at most."""
    from scipy.stats import t  # half a second

    return float(t.ppf(0.975, seeds - 1) * math.sqrt(1 + 1 / seeds))


def _metric(results: Results, task: str) -> str:
    """What a task's values are: the first metric of its file."""
    presets = (row.preset for row in results.study.rows)
    return next((str(p.tasks[task].metrics[0]) for p in presets if task in p.tasks), "")


def published(arm: str) -> str:
    """The paper's arm that one of ours answers."""
    return arm.removesuffix("_mean")


def _cell(value: Spread | None) -> str:
    if value is None:
        return NONE
    return f"{value.mean:.2f}" + (f" ± {value.std:.2f}" if value.std else "")


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"
