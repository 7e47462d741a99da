"""The report of a run of tasks: sections in their order, and what stands above them; and the files of any report."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from condpdiff.common.files import new_directory, write_json
from condpdiff.common.settings import PARAMS
from condpdiff.experiments.params import Params
from condpdiff.report import condition_section, doses_section, figures, novelty_section, studies_section
from condpdiff.report.arms import OURS
from condpdiff.report.blocks import Block, Figures, Report, Section, Table, Text, best
from condpdiff.report.compare import WORDS, Comparison, number, signed
from condpdiff.report.evaluation import Spec, Summary, averages, columns_of, metrics, pivot, read_csv, summarise
from condpdiff.zoo.settings import SHARED

if TYPE_CHECKING:
    from condpdiff.text.report import TextSpec

FOREST = "condpdiff minus the other arm, selected candidates: **right of 0 condpdiff is better**. "
DIFFERENCES = " The best control was picked with hindsight, which favours it."
DIFFERENCES_MEAN = " The last column compares means over all candidates, so that no selection enters."
ARMS = (
    "Scores of all candidates that have one (dots), their mean (bar) and the selected one (diamond, and figure at the "
    "right). Dashed: soup. Arms out of the range are arrows."
)
VARIANT = f"{OURS}, paper's variant"
VARIANT_IS = " Last row: a task's own statistics choose it (study `frame`, mean over {seeds} seeds)."
CANDIDATES = "{label}: mean ± sample standard deviation over an arm's candidates (best in brackets)."
RACING = (
    "Candidates were selected by racing (`eval.select`). {why} {done:,} rows went through the models in place of "
    "{full:,}."
)
WATCHED = ("condpdiff", "stages", "configs", "params.yaml", "dvc.yaml")
"""What a result depends on; dvc.lock and the metrics change with every run."""


def build(spec: "TextSpec", params: Params) -> Report:
    """Select, summarise, compare and draw; a further section has its line here."""
    names, summary = [e.name for e in spec.evaluations], summarise(spec.evaluations)
    margin = params.report.learned_margin
    flags = {e.name: why for e in spec.evaluations if (why := spec.why_not_learned(e, margin))}
    comparisons = spec.comparisons(summary, params.report.seed)
    control = comparisons["control"]
    table = selected_table(spec, summary, spec.results(params), params.normalize.method in SHARED)
    probed = condition_section.read_probe(spec.data / "probe")
    columns = {"task": "task", "arm": "arm", "selected": "score", "mean": "mean", "worst": "low", "best": "high"}
    return Report(
        verdict=verdict(spec, comparisons, summary, flags) + condition_section.verdict(probed),
        word=control.average.word,
        tiles=_tiles(summary, control.arm),
        warnings=_warnings(spec, flags),
        sections=[
            _results(spec, params, comparisons, table),
            _candidates(spec, summary),
            novelty_section.section(spec, params, spec.novelty()),
            *doses_section.sections(spec, params),
            *condition_section.sections(probed, spec.label, spec.nonsense, params.normalize.method),
            *studies_section.sections(),
            Section("paper", "The paper's figures, for context", spec.paper()),
            settings_section(_tasks(spec)),
        ],
        table=table,
        metrics=metrics(summary, flags) | condition_section.effect(probed),
        plots={
            "arms": summary[list(columns)].rename(columns=columns).round(4),
            "doses": doses_section.frame(spec.evaluations),
            "finetune_loss": training_curve(names, spec.data, "loss.csv", "loss"),
            "finetune_validation": training_curve(names, spec.data, "validation.csv", "score"),
        },
    )


def training_curve(tasks: list[str], data: Path, file: str, y: str) -> pd.DataFrame:
    """`data/zoo/<task>/<file>` of all tasks in one frame, for `dvc plots`: task, step, <y>."""
    columns = ["task", "step", y]
    return pd.concat(read_csv(data / "zoo" / task / file, columns)[columns] for task in tasks)


def _tasks(spec: "TextSpec") -> Table:
    cells = {e.name: spec.task_settings(e) for e in spec.evaluations}
    caption = "The tasks, from `configs/tasks/`; steps are those before the collection window opens."
    return Table(caption, ["task", *next(iter(cells.values()))], [[task, *row.values()] for task, row in cells.items()])


def settings_section(*blocks: Block) -> Section:
    """Git revision and params.yaml, with other blocks between them."""
    made, text = f"Git revision that the report was made at: {revision()}.", PARAMS.read_text(encoding="utf-8")
    return Section("settings", "Settings", [Text(made), *blocks, Text(text.strip(), file="params.yaml")])


def revision() -> str:
    """Commit of the working directory, and whether code or settings differ from it; `unknown` without Git."""
    try:
        commit, changed = (
            subprocess.run(["git", *command], capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--", *WATCHED])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"`{commit}`" + (" with uncommitted changes" if changed else "")


def write(out: Path, report: Report, settings: str) -> None:
    """Write a report's files to `out`, and its warnings to stderr; `settings` is the fingerprint in metrics.json."""
    for warning in report.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    out.mkdir(exist_ok=True)
    with new_directory(out / "figures") as folder:
        for image in report.images:
            (folder / f"{image.name}.{image.suffix}").write_bytes(image.content)
    with new_directory(out / "plots") as folder:
        for name, frame in report.plots.items():
            frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    (out / "index.html").write_text(report.html, encoding="utf-8")
    (out / "results.md").write_text(report.brief, encoding="utf-8")
    write_json(out / "metrics.json", report.metrics | {"settings": settings})


def verdict(
    spec: "TextSpec", comparisons: Mapping[str, Comparison], summary: Summary, flags: Mapping[str, str]
) -> list[str]:
    """The figures in words: the first sentence is the verdict, the others qualify it."""
    picked, control, soup = averages(summary), comparisons["control"], comparisons["soup"]
    n = len(control.tasks)
    over = f"Over the mean of {n} tasks" if n > 1 else f"On {next(iter(control.tasks))}"
    lines = [
        f"{over}, condpdiff ({picked['condpdiff']:.2f}) **{control.average.word}** the best control, "
        f"{control.arm} ({picked[control.arm]:.2f}): difference {spec.said(control.average)}."
    ]
    if control.arm != "soup":
        lines.append(f"It **{soup.average.word}** soup ({picked['soup']:.2f}): {spec.said(soup.average)}.")
    if n > 1:
        beats, ties, loses = ([d.word for d in control.tasks.values()].count(w) for w in WORDS)
        each = f"Task by task it beats {control.arm} on {beats}"
        lines.append(f"{each}, ties on {ties} and loses on {loses} of {n}.")
    lines += spec.qualified(comparisons, summary)
    if flags:
        were, them = ("task was", "it") if len(flags) == 1 else ("tasks were", "them")
        lines.append(f"{len(flags)} of {n} {were} not learned ({', '.join(flags)}); the averages include {them}.")
    return lines


def _tiles(summary: Summary, control: str) -> list[tuple[str, str, str]]:
    average, shown = averages(summary), dict.fromkeys(["soup", control, "original", "no_lora"])
    return [("condpdiff", f"{average['condpdiff']:.1f}", "selected on held-out rows")] + [
        (arm, f"{average[arm]:.1f}", f"condpdiff {signed(average['condpdiff'] - average[arm])}") for arm in shown
    ]


def _warnings(spec: Spec, flags: Mapping[str, str]) -> list[str]:
    lost = "candidates have no score (what they give is no number); they count as 0"
    warnings = [f"Task `{name}` was not learned: {why}." for name, why in flags.items()]
    warnings += [f"Task `{e.name}`: {e.unscored} {lost}." for e in spec.evaluations if e.unscored]
    return warnings + [
        f"Task `{e.name}`: {count} samples of asked-for performance have no loss; they are left out."
        for e in spec.evaluations
        if (count := doses_section.samples(e)["loss"].isna().sum())
    ]


def _results(spec: "TextSpec", params: Params, comparisons: Mapping[str, Comparison], table: Table) -> Section:
    """The comparison itself; `table` is of the selected candidates."""
    shown = list({c.arm: c for key, c in comparisons.items() if key != "mean"}.values())
    p = params
    said = (
        f"{p.sample.count} samples a task from noise, {p.normalize.n_checkpoints} checkpoints a task, LoRA rank "
        f"{p.collect.rank}. One run; seeds: data {p.data.seed}, collect {p.collect.seed}, autoencoder {p.ae.seed}, "
        f"diffusion {p.ldm.seed}, sample {p.sample.seed}, eval {p.eval.seed}, report {p.report.seed}."
    )
    blocks: list[Block] = [
        Text(f"{spec.measured(params)} {said}"),
        Figures(FOREST + spec.interval, [figures.forest(shown)], wide=True),
        table,
        _differences(spec, shown, comparisons.get("mean")),
        Figures(ARMS, [figures.arms(e) for e in spec.evaluations]),
        Table("What each arm is.", ["arm", "what it is"], list(spec.scale.arms.items()), numeric=False),
    ]
    return Section("results", "What beats what", blocks)


def selected_table(spec: Spec, summary: Summary, caption: str, shared: bool) -> Table:
    """Arms x tasks, the selected candidates, for page and README.

    Where all tasks share one frame, the paper's variant stands below, if a study has it.
    """
    names, tasks, picked = [e.name for e in spec.evaluations], columns_of(spec), pivot(summary, "selected")
    rows = [[arm, *(number(row[task], 1) for task in tasks)] for arm, row in picked.items()]
    columns = ["arm", *(f"{e.name} ({e.metric})" for e in spec.evaluations), "mean"][: len(tasks) + 1]
    variant, seeds = studies_section.papers_variant(names, OURS)
    if len(variant) and shared:
        rows.append([VARIANT, *(number(variant.get(task, variant.mean()), 1) for task in tasks)])
        caption += VARIANT_IS.format(seeds=seeds)
    bold = best(pd.DataFrame(picked).T[tasks].round(1).to_numpy())
    return Table(caption, columns, rows, bold)


def _differences(spec: "TextSpec", shown: list[Comparison], mean: Comparison | None) -> Table:
    columns = {f"minus {c.arm}": c for c in shown} | ({"mean minus mean original": mean} if mean else {})
    rows = [[e.name, *(str(c.tasks[e.name]) for c in columns.values())] for e in spec.evaluations]
    tasks = len(rows)
    if tasks > 1:
        rows.append(["mean of tasks", *(str(c.average) for c in columns.values())])
    rows.append(["verdict: condpdiff", *(c.average.word.split()[0] for c in columns.values())])
    caption = spec.differences + DIFFERENCES + (DIFFERENCES_MEAN if mean else "")
    accent = frozenset({len(rows) - 2, len(rows) - 1})
    return Table(caption, ["condpdiff", *columns], rows, accent=accent, foot=len(rows) - tasks)


def _candidates(spec: "TextSpec", summary: Summary) -> Section:
    """All candidates of every arm, or what racing leaves out."""
    if spec.racing:
        counts = [counts for e in spec.evaluations for counts in e.passes.values()]
        done, full = (sum(each[key] for each in counts) for key in ("done", "full"))
        text = Text(RACING.format(why=spec.why_racing, done=done, full=full))
        return Section("candidates", "What racing leaves out", [text, *_all_metrics(spec)])
    said = {}
    for s in summary.to_dict("records"):
        spread = "" if s["candidates"] == 1 else f" ± {s['std']:.1f} ({number(s['best'], 1)})"
        said[s["arm"], s["task"]] = number(s["mean"], 1) + spread
    rows = [
        [str(arm), str(most), *(said.get((arm, e.name), "–") for e in spec.evaluations)]
        for arm, most in summary.groupby("arm", sort=False)["candidates"].max().items()
    ]
    caption = CANDIDATES.format(label=spec.label[0].upper() + spec.label[1:])
    table = Table(caption, ["arm", "candidates", *(e.name for e in spec.evaluations)], rows)
    title = "All candidates, and the paper's rule"
    return Section("candidates", title, [table, *spec.rules(summary), *_all_metrics(spec)])


def _all_metrics(spec: "TextSpec") -> list[Block]:
    """Nothing where every task has one metric."""
    evaluations = spec.evaluations
    shown = [(e, metric) for e in evaluations for metric in e.task.metrics]
    if len(shown) == len(evaluations):
        return []
    arms = [arm for arm in evaluations[0].arms if all(arm in e.arms for e in evaluations)]
    rows = [[arm, *(number(e.picked(arm, f"validation_{metric}"), 1) for e, metric in shown)] for arm in arms]
    return [Table(spec.all_metrics, ["arm", *(f"{e.name} {metric}" for e, metric in shown)], rows)]
