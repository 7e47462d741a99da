"""Puts the report together: sections in their order, and what stands above them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from condpdiff.common.settings import PARAMS
from condpdiff.report import condition_section, doses_section, figures, novelty_section, studies_section
from condpdiff.report.arms import OURS
from condpdiff.report.blocks import Block, Figures, Section, Table, Text
from condpdiff.report.compare import WORDS, Comparison, number, signed
from condpdiff.report.png import Picture
from condpdiff.report.revision import revision
from condpdiff.report.spec import Settings, Spec
from condpdiff.report.summary import AVERAGE, Summary, arms_frame, averages, metrics, pivot, summarise
from condpdiff.report.svg import Image
from condpdiff.zoo.settings import SHARED

FOREST = "condpdiff minus the other arm, selected candidates: **right of 0 condpdiff is better**. "
DIFFERENCES = " The best control was picked with hindsight, which favours it."
DIFFERENCES_MEAN = " The last column compares means over all candidates, so that no selection enters."
ARMS = {
    True: "Score of each arm's selected candidate (diamond, and the figure at the right), the only one scored.",
    False: "Scores of all candidates (dots), their mean (bar) and the selected one (diamond, and figure at the right).",
}
"""Racing or not -> caption."""
VARIANT = f"{OURS}, paper's variant"
VARIANT_IS = " Last row: a task's own statistics choose it (study `frame`, mean over {seeds} seeds)."
OUT_OF_RANGE = " Dashed: soup. Arms out of the range are arrows."
CANDIDATES = "{label}: mean ± sample standard deviation over an arm's candidates (best in brackets)."
RACING = (
    "Candidates were selected by racing (`eval.select`). {why} {done:,} rows went through the models in place of "
    "{full:,}."
)


@dataclass(frozen=True)
class Report:
    """The finished content."""

    verdict: list[str]
    word: str  # beats | ties with | loses to: condpdiff and the best control
    tiles: list[tuple[str, str, str]]  # label, figure, note
    warnings: list[str]
    sections: list[Section]
    table: Table  # arms x tasks: what the README shows
    metrics: dict[str, Any]
    arms: pd.DataFrame  # task, arm, score, mean, low, high

    @property
    def images(self) -> Iterator[Image | Picture]:
        """Every figure and picture."""
        for block in (b for s in self.sections for b in s.blocks):
            if isinstance(block, Figures):
                yield from block.images
            elif isinstance(block, Table):
                yield from (cell for row in block.rows for cell in row if isinstance(cell, Picture))


def build(spec: Spec, params: Settings) -> Report:
    """Select, summarise, compare and draw; a further section has its line here."""
    summary, margin = summarise(spec.evaluations), params.report.learned_margin
    flags = {e.name: why for e in spec.evaluations if (why := spec.why_not_learned(e, margin))}
    comparisons = spec.comparisons(summary, params.report.seed)
    control = comparisons["control"]
    table = selected_table(spec, summary, spec.results(params), params.normalize.method in SHARED)
    probed = condition_section.read_probe(spec.data / "probe")
    sections = [
        *results(spec, params, comparisons, table),
        *candidates(spec, summary),
        *novelty_section.sections(spec, params),
        *doses_section.sections(spec, params),
        *condition_section.sections(probed, spec, params),
        *studies_section.sections(),
        Section("paper", "The paper's figures, for context", spec.paper()),
        Section("settings", "Settings", _settings(spec)),
    ]
    said = verdict(spec, comparisons, summary, flags) + condition_section.verdict(probed)
    found = metrics(summary, flags) | condition_section.effect(probed)
    tiles, warnings = _tiles(summary, control.arm), _warnings(spec, flags)
    return Report(said, control.average.word, tiles, warnings, sections, table, found, arms_frame(summary))


def verdict(spec: Spec, comparisons: Mapping[str, Comparison], summary: Summary, flags: Mapping[str, str]) -> list[str]:
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
        for e in doses_section.with_doses(spec.evaluations)
        if (count := doses_section.unscored(e))
    ]


def _settings(spec: Spec) -> list[Block]:
    cells = {e.name: spec.task_settings(e) for e in spec.evaluations}
    caption = "The tasks, from `configs/tasks/`; steps are those before the collection window opens."
    columns = ["task", *next(iter(cells.values()))]
    return [
        Text(f"Git revision that the report was made at: {revision()}."),
        Table(caption, columns, [[name, *row.values()] for name, row in cells.items()]),
        Text(PARAMS.read_text(encoding="utf-8").strip(), file="params.yaml"),
    ]


def results(spec: Spec, params: Settings, comparisons: Mapping[str, Comparison], table: Table) -> list[Section]:
    """The comparison itself; `table` is of the selected candidates."""
    shown = list({c.arm: c for key, c in comparisons.items() if key != "mean"}.values())
    p = params
    said = (
        f"{p.sample.count} samples a task from noise, {p.normalize.n_checkpoints} checkpoints a task, LoRA rank "
        f"{p.collect.rank}. One run; seeds: data {p.data.seed}, collect {p.collect.seed}, autoencoder {p.ae.seed}, "
        f"diffusion {p.ldm.seed}, sample {p.sample.seed}, eval {p.eval.seed}, report {p.report.seed}."
    )
    arms = [list(row) for row in spec.scale.arms.items()]
    blocks: list[Block] = [
        Text(f"{spec.measured(params)} {said}"),
        Figures(FOREST + spec.interval, [figures.forest(shown)], wide=True),
        table,
        _differences(spec, shown, comparisons.get("mean")),
        Figures(ARMS[spec.racing] + OUT_OF_RANGE, [figures.arms(e) for e in spec.evaluations]),
        Table("What each arm is.", ["arm", "what it is"], arms, numeric=False),
    ]
    return [Section("results", "What beats what", blocks)]


def selected_table(spec: Spec, summary: Summary, caption: str, shared: bool) -> Table:
    """Arms x tasks, the selected candidates; the README shows it too.

    Args:
        shared: all tasks have one frame; then the paper's variant stands below, where a study has it.
    """
    picked, tasks = pivot(summary, "selected"), columns_of(spec)
    rows = [[arm, *(number(row[t], 1) for t in tasks)] for arm, row in picked.items()]
    held = np.array([[round(row[t], 1) for t in tasks] for row in picked.values()])
    best = frozenset((int(i), int(j) + 1) for i, j in np.argwhere(held == np.nanmax(held, axis=0)))
    columns = ["arm", *(f"{e.name} ({e.metric})" for e in spec.evaluations), "mean"][: len(tasks) + 1]
    variant, seeds = studies_section.papers_variant([e.name for e in spec.evaluations], OURS)
    if variant and shared:
        values = [variant.get(task, float(np.mean(list(variant.values())))) for task in tasks]
        rows.append([VARIANT, *(number(value, 1) for value in values)])
        caption += VARIANT_IS.format(seeds=seeds)
    return Table(caption, columns, rows, best)


def _differences(spec: Spec, shown: list[Comparison], mean: Comparison | None) -> Table:
    evaluations = spec.evaluations
    columns = {f"minus {c.arm}": c for c in shown} | ({"mean minus mean original": mean} if mean else {})
    rows = [[e.name, *(str(c.tasks[e.name]) for c in columns.values())] for e in evaluations]
    if len(evaluations) > 1:
        rows.append(["mean of tasks", *(str(c.average) for c in columns.values())])
    rows.append(["verdict: condpdiff", *(c.average.word.split()[0] for c in columns.values())])
    caption = spec.differences + DIFFERENCES + (DIFFERENCES_MEAN if mean else "")
    foot = len(rows) - len(evaluations)
    return Table(caption, ["condpdiff", *columns], rows, accent=frozenset({len(rows) - 2, len(rows) - 1}), foot=foot)


def candidates(spec: Spec, summary: Summary) -> list[Section]:
    """All candidates of every arm, or what racing leaves out."""
    if spec.racing:
        counts = [counts for e in spec.evaluations for counts in e.passes.values()]
        done, full = (sum(each[key] for each in counts) for key in ("done", "full"))
        said = RACING.format(why=spec.why_racing, done=done, full=full)
        return [Section("candidates", "What racing leaves out", [Text(said), *_all_metrics(spec)])]
    rules = spec.rules(summary)
    title = "All candidates, and the paper's rule" if rules else "All candidates"
    return [Section("candidates", title, [_candidates(spec, summary), *rules, *_all_metrics(spec)])]


def _candidates(spec: Spec, summary: Summary) -> Table:
    """Mean ± standard deviation (best) of each arm's candidates."""
    found = {(s.task, s.arm): s for s in summary}
    rows = []
    for arm in dict.fromkeys(s.arm for s in summary):
        row = [arm, str(max(s.candidates for s in summary if s.arm == arm))]
        for e in spec.evaluations:
            s = found.get((e.name, arm))
            spread = "" if s is None or s.candidates == 1 else f" ± {s.std:.1f} ({number(s.best, 1)})"
            row.append(number(math.nan if s is None else s.mean, 1) + spread)
        rows.append(row)
    caption = CANDIDATES.format(label=spec.label[0].upper() + spec.label[1:])
    return Table(caption, ["arm", "candidates", *(e.name for e in spec.evaluations)], rows)


def _all_metrics(spec: Spec) -> list[Block]:
    """Nothing where every task has one metric."""
    evaluations = spec.evaluations
    shown = [(e, metric) for e in evaluations for metric in e.task.metrics]
    if len(shown) == len(evaluations):
        return []
    arms = [arm for arm in evaluations[0].arms if all(arm in e.arms for e in evaluations)]
    rows = [[arm, *(number(e.picked(arm, f"validation_{metric}"), 1) for e, metric in shown)] for arm in arms]
    return [Table(spec.all_metrics, ["arm", *(f"{e.name} {metric}" for e, metric in shown)], rows)]


def columns_of(spec: Spec) -> list[str]:
    """Keys of a pivot's row that a table shows: a single task needs no average."""
    return [*(e.name for e in spec.evaluations), *([AVERAGE] if len(spec.evaluations) > 1 else [])]
