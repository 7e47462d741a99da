"""Puts the report on text tasks together."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from condpdiff.experiments.params import Params
from condpdiff.report import between, doses, figures, probe, studies, text
from condpdiff.report.blocks import (
    Block,
    Figures,
    Gallery,
    Section,
    Table,
    Text,
    Verbatim,
)  # fmt: skip
from condpdiff.report.compare import Comparison, best_control, compare, signed, verdict
from condpdiff.report.overlap import wrong_overlap, wrong_overlaps
from condpdiff.report.parts import (
    accent,
    arm_table,
    candidates_table,
    columns_of,
    distance_table,
    followed,
    number,
    spread_table,
    training,
)  # fmt: skip
from condpdiff.report.png import Picture
from condpdiff.report.svg import Image
from condpdiff.report.tables import (
    ARMS,
    CONTROLS,
    ArmScore,
    Evaluation,
    Summary,
    column,
    not_learned,
    pivot,
    summarise,
)  # fmt: skip
from condpdiff.report.tsne import Points, has_noises, tsne


@dataclass(frozen=True)
class Inputs:
    """All that the report is made from."""

    params: Params
    params_text: str
    evaluations: list[Evaluation]
    finetune_loss: pd.DataFrame  # task, step, loss
    finetune_validation: pd.DataFrame  # task, step, score
    autoencoder: tuple[pd.DataFrame, list[str]]  # step, loss[, validation]; the columns to draw
    ldm: tuple[pd.DataFrame, list[str]]
    zoo_losses: dict[str, np.ndarray]  # task with doses -> loss [N] of its checkpoints
    pairs: list[between.Between]  # what lies between them
    probed: probe.Probed  # what the condition does
    trajectories: dict[str, Points]  # task -> noises on their way to LoRAs
    studies: pd.DataFrame  # study, size, row, seed, arm, task, value, paper
    revision: str  # of Git
    paper: pd.DataFrame  # Table 1: model, rank, lora_params, task, condpdiff, original, soup


@dataclass(frozen=True)
class Report:
    """The finished content."""

    verdict: list[str]
    word: str
    """beats | ties with | loses to: condpdiff and the best control."""
    tiles: list[tuple[str, str, str]]  # label, figure, note
    warnings: list[str]
    sections: list[Section]
    summary: Summary
    flags: dict[str, str]

    @property
    def images(self) -> list[Image]:
        return [i for i in self._drawn if isinstance(i, Image)]

    @property
    def pictures(self) -> list[Picture]:
        return [i for i in self._drawn if isinstance(i, Picture)]

    @property
    def _drawn(self) -> Iterator[Image | Picture]:
        for block in (b for s in self.sections for b in s.blocks):
            if isinstance(block, Figures):
                yield from block.images
            elif isinstance(block, Gallery):
                yield from (picture for _, row in block.rows for picture in row)


def build(inputs: Inputs) -> Report:
    """Select, summarise, compare and draw."""
    evaluations, settings = inputs.evaluations, inputs.params.report
    summary = summarise(evaluations)
    flags = not_learned(evaluations, summary, settings.learned_margin)
    control = best_control(summary)
    comparisons = {
        "control": compare(evaluations, control, "selected", settings.seed),
        "soup": compare(evaluations, "soup", "selected", settings.seed),
        "original": compare(evaluations, "original", "selected", settings.seed),
    }
    racing = any(e.racing for e in evaluations)
    if not racing:  # every candidate has a score
        comparisons["original mean"] = compare(evaluations, "original", "mean", settings.seed)
    warnings = [f"Task `{task}` was not learned: {why}." for task, why in flags.items()]
    warnings += [
        f"Task `{e.name}`: {e.unscored} candidates have no score (their predictions are not numbers); they count as 0."
        for e in evaluations
        if e.unscored
    ]
    warnings += [
        f"Task `{e.name}`: {count} samples of asked-for performance have no loss; they are left out."
        for e in doses.with_doses(evaluations)
        if (count := doses.unscored(e))
    ]
    sections = [
        Section("results", "What beats what", _results(inputs, summary, comparisons)),
        Section("rules", text.RULES_RACING if racing else text.RULES, _rules(inputs, summary, racing)),
        Section("novelty", "Where the generated weights lie", _novelty(inputs, racing)),
        *_doses(inputs),
        *between.sections(inputs.pairs, evaluations),
        *probe.sections(inputs.probed, evaluations, inputs.params.normalize.method, inputs.params.probe),
        *studies.sections(inputs.studies),
        Section("training", "Training curves", _training(inputs)),
        Section("paper", "The paper's figures, for context", _paper(inputs.paper)),
        Section("settings", "Settings", _settings(inputs)),
    ]
    return Report(
        verdict(comparisons, summary, flags) + probe.verdict(inputs.probed, evaluations),
        comparisons["control"].average.word, _tiles(summary, comparisons), warnings, sections, summary, flags,
    )  # fmt: skip


def results_table(summary: Summary, evaluations: list[Evaluation]) -> Table:
    """Arms x tasks, the selected candidates; the README shows it too."""
    picked = pivot(summary, "selected")
    tasks = columns_of(evaluations)
    columns = ["arm", *(f"{e.name} ({e.metric})" for e in evaluations), *(["mean"] if len(evaluations) > 1 else [])]
    rows = [[arm, *(number(row[t], 1) for t in tasks)] for arm, row in picked.items()]
    top = {t: max(round(row[t], 1) for row in picked.values() if not math.isnan(row[t])) for t in tasks}
    best = frozenset(
        (i, j + 1) for i, row in enumerate(picked.values()) for j, t in enumerate(tasks) if round(row[t], 1) == top[t]
    )
    return Table(text.RESULTS, columns, rows, best, accent(rows))


def _tiles(summary: Summary, comparisons: dict[str, Comparison]) -> list[tuple[str, str, str]]:
    average = {arm: row["average"] for arm, row in pivot(summary, "selected").items()}
    shown = list(dict.fromkeys(["soup", comparisons["control"].arm, "original", "no_lora"]))
    tiles = [("condpdiff", f"{average['condpdiff']:.1f}", "selected on held-out rows")]
    return tiles + [
        (arm, f"{average[arm]:.1f}", f"condpdiff {signed(average['condpdiff'] - average[arm])}") for arm in shown
    ]


def _results(inputs: Inputs, summary: Summary, comparisons: dict[str, Comparison]) -> list[Block]:
    evaluations = inputs.evaluations
    shown = list({c.arm: c for k, c in comparisons.items() if k in ("original", "soup", "control")}.values())
    columns = [(f"minus {c.arm}", c) for c in shown]
    if mean := comparisons.get("original mean"):
        columns.append(("mean minus mean original", mean))
    rows = [[e.name, *(str(c.tasks[e.name]) for _, c in columns)] for e in evaluations]
    if len(evaluations) > 1:
        rows.append(["mean of tasks", *(str(c.average) for _, c in columns)])
    rows.append(["verdict: condpdiff", *(c.average.word.split()[0] for _, c in columns)])
    mean_and_verdict, foot = frozenset({len(rows) - 2, len(rows) - 1}), len(rows) - len(evaluations)
    caption = text.DIFFERENCES + (text.DIFFERENCES_MEAN if mean else "")
    differences = Table(
        caption, ["condpdiff", *(name for name, _ in columns)], rows, accent=mean_and_verdict, foot=foot
    )
    return [
        Text(text.rows_and_seeds(inputs.params, evaluations)),
        Figures(text.FOREST, [figures.forest(shown)], wide=True),
        results_table(summary, evaluations),
        differences,
        Figures(text.ARMS_FIGURE if mean else text.RACING_FIGURE, [figures.arms(e) for e in evaluations]),
        Table("What each arm is.", ["arm", "what it is"], [[a, t] for a, t in ARMS.items()], numeric=False),
    ]


def _rules(inputs: Inputs, summary: Summary, racing: bool) -> list[Block]:
    metrics = _all_metrics(inputs, summary)
    if racing:
        return [Text(text.racing(inputs.evaluations)), *metrics]
    return [candidates_table(inputs.evaluations, summary, text.CANDIDATES), _paper_rule(inputs, summary), *metrics]


def _paper_rule(inputs: Inputs, summary: Summary) -> Table:
    ours, theirs = pivot(summary, "selected"), pivot(summary, "paper")
    shown = columns_of(inputs.evaluations)
    gain = [signed(theirs["condpdiff"][t] - theirs["original"][t]) for t in shown]
    rules = [
        ["original, picked on held-out rows (ours)", *(number(ours["original"][t], 1) for t in shown)],
        ["original, picked on validation (paper)", *(number(theirs["original"][t], 1) for t in shown)],
        ["soup", *(number(ours["soup"][t], 1) for t in shown)],
        ["condpdiff, picked on held-out rows", *(number(ours["condpdiff"][t], 1) for t in shown)],
        ["condpdiff minus original, paper's rule", *gain],
    ]
    columns = ["arm and rule", *(t.replace("average", "mean") for t in shown)]
    return Table(text.PAPER_RULE, columns, rules, accent=frozenset({3}))


def _all_metrics(inputs: Inputs, summary: Summary) -> list[Block]:
    """Nothing where every task has one metric."""
    tasks = [e.name for e in inputs.evaluations]
    cells = {(s.task, s.arm): s for s in summary}
    pairs = [(e, m) for e in inputs.evaluations for m in e.task.metrics]
    if len(pairs) == len(tasks):
        return []
    rows = [
        [arm, *(number(_metric(e, cells[e.name, arm], m), 1) for e, m in pairs)]
        for arm in dict.fromkeys(s.arm for s in summary)
        if all((t, arm) in cells for t in tasks)
    ]
    return [Table(text.ALL_METRICS, ["arm", *(f"{e.name} {m}" for e, m in pairs)], rows, accent=accent(rows))]


def _metric(e: Evaluation, score: ArmScore, name: str) -> float:
    return float(column(e.scores, np.array([score.row]), f"validation_{name}")[0])


def _novelty(inputs: Inputs, racing: bool) -> list[Block]:
    evaluations, settings = inputs.evaluations, inputs.params.report
    arms = ("original", *CONTROLS, "condpdiff")
    overlap = arm_table(evaluations, text.OVERLAP, arms, lambda e, arm: number(wrong_overlap(e, arm)))
    classes = [e for e in evaluations if e.task.data.kind == "classification" and not racing]
    ways = {name: found for name, found in inputs.trajectories.items() if has_noises(found)}
    return [
        spread_table(evaluations),
        distance_table(evaluations),
        Figures(
            text.NOVELTY_FIGURE + text.CORRELATION + (text.NOVELTY_RACING if racing else ""),
            [figures.novelty(e) for e in evaluations],
        ),
        *([overlap] if classes else []),
        *([Figures(text.MISTAKES, [figures.mistakes(e, wrong_overlaps(e)) for e in classes])] if classes else []),
        Figures(text.TSNE, [tsne(e, settings.perplexity, settings.seed) for e in evaluations]),
        *followed(ways, settings.perplexity, settings.seed),
    ]


def _doses(inputs: Inputs) -> list[Section]:
    """Nothing where no performance was asked for."""
    if not doses.with_doses(inputs.evaluations):
        return []
    blocks = doses.blocks(inputs.evaluations, inputs.zoo_losses, inputs.params.ldm.performance)
    return [Section("doses", "Asked-for against obtained performance", blocks)]


def _training(inputs: Inputs) -> list[Block]:
    opens = {e.name: e.task.finetune.steps for e in inputs.evaluations}
    finetune = [
        figures.task_curves(inputs.finetune_loss, "loss", "finetune-loss", "training loss", opens, smooth=15),
        figures.task_curves(inputs.finetune_validation, "score", "finetune-validation", "validation score, %", opens),
    ]
    return training(Figures(text.FINETUNE, finetune), inputs.autoencoder, inputs.ldm)


def _paper(paper: pd.DataFrame) -> list[Block]:
    ranks = paper[paper["condpdiff"].notna()]
    average = ranks[ranks["task"] == "Average"]
    gain = (ranks["condpdiff"] - ranks["original"])[ranks["task"] != "Average"]
    rows = [
        [f"{r.model}, rank {r.rank}", f"{r.condpdiff:.1f}", f"{r.original:.1f}", f"{r.soup:.1f}"]
        for r in average.itertuples()
    ]
    return [
        Text(text.paper(len(gain), float(gain.mean()))),
        Table(text.PAPER_TABLE, ["model", "condpdiff", "original", "soup"], rows),
    ]


def _settings(inputs: Inputs) -> list[Block]:
    rows = [
        [
            e.name, e.task.data.kind, ", ".join(e.task.metrics), str(len(e.labels)), str(e.task.finetune.steps),
            str(e.task.finetune.batch_size), f"{e.task.finetune.lr:g}", f"{e.task.finetune.head_lr:g}",
        ]
        for e in inputs.evaluations
    ]  # fmt: skip
    columns = ["task", "kind", "metrics", "validation rows", "steps", "batch", "LoRA lr", "head lr"]
    caption = "The tasks, from `configs/tasks/`; steps are those before the collection window opens."
    return [
        Text(text.made_at(inputs.revision)),
        Table(caption, columns, rows),
        Verbatim("params.yaml", inputs.params_text.strip()),
    ]
