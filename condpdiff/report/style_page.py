"""Puts the report on styles together; what is read and what is drawn lies beside."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from condpdiff.experiments.params import Params
from condpdiff.report import between, doses, figures, probe, studies
from condpdiff.report import style_text as text
from condpdiff.report.blocks import Block, Figures, Gallery, Section, Table, Text, Verbatim
from condpdiff.report.compare import Comparison, best_control, signed
from condpdiff.report.page import Report
from condpdiff.report.parts import (
    accent,
    candidates_table,
    columns_of,
    distance_table,
    followed,
    number,
    spread_table,
    training,
)  # fmt: skip
from condpdiff.report.png import Picture
from condpdiff.report.style_compare import compare, verdict
from condpdiff.report.style_tables import ARMS, LABELS, SHOWN, StyleEvaluation, not_learned
from condpdiff.report.tables import Summary, candidates, column, pivot, summarise
from condpdiff.report.text import CORRELATION, NOVELTY_RACING, TSNE, made_at
from condpdiff.report.tsne import has_noises, tsne


@dataclass(frozen=True)
class BaseModel:
    """What prepare-base shows of a base model that it trained itself."""

    sheet: Picture
    curves: dict[str, tuple[pd.DataFrame, list[str]]]  # title -> step, loss[, validation]; the columns to draw


@dataclass(frozen=True)
class Inputs:
    """All that the report is made from."""

    params: Params
    params_text: str
    evaluations: list[StyleEvaluation]
    finetune_loss: pd.DataFrame  # task, step, loss
    finetune_validation: pd.DataFrame  # task, step, score (minus the loss on validation images)
    autoencoder: tuple[pd.DataFrame, list[str]]  # step, loss[, validation]; the columns to draw
    ldm: tuple[pd.DataFrame, list[str]]
    zoo_losses: dict[str, np.ndarray]  # style with doses -> loss [N] of its checkpoints
    pairs: list[between.Between]  # what lies between them
    probed: probe.Probed  # what the condition does
    studies: pd.DataFrame  # study, size, row, seed, arm, task, value, paper
    revision: str  # of Git
    paper: pd.DataFrame  # Table 2: style, original, soup, no_lora, condpdiff
    base: BaseModel | None  # None: not trained here


def build(inputs: Inputs) -> Report:
    """Select, summarise, compare and draw."""
    evaluations, settings = inputs.evaluations, inputs.params.report
    summary = summarise(evaluations)
    flags = not_learned(evaluations, summary, settings.learned_margin)
    arms = {"control": best_control(summary, lower=True), "original": "original", "soup": "soup"}
    comparisons = {key: compare(summary, arm) for key, arm in arms.items()}
    racing = any(e.racing for e in evaluations)
    sections = [
        Section("results", "What beats what", _results(inputs, summary, comparisons, racing)),
        Section("images", "The images themselves", [_gallery(e) for e in evaluations]),
        Section("candidates", "What racing leaves out" if racing else "All candidates", _candidates(inputs, summary)),
        Section("novelty", "Where the generated weights lie", _novelty(inputs)),
        *_doses(inputs),
        *between.sections(inputs.pairs, evaluations),
        *probe.sections(inputs.probed, evaluations, inputs.params.normalize.method, inputs.params.probe),
        *studies.sections(inputs.studies),
        *_base(inputs.base),
        Section("training", "Training curves", _training(inputs)),
        Section("paper", "The paper's figures, for context", _paper(inputs.paper)),
        Section("settings", "Settings", _settings(inputs)),
    ]
    return Report(
        verdict(comparisons, summary, flags, evaluations[0].metric, text.noun(evaluations))
        + probe.verdict(inputs.probed, evaluations),
        comparisons["control"].average.word, _tiles(summary, comparisons["control"].arm),
        _warnings(evaluations, flags), sections, summary, flags,
    )  # fmt: skip


def _warnings(evaluations: list[StyleEvaluation], flags: dict[str, str]) -> list[str]:
    warnings = [f"Style `{style}` was not learned: {why}." for style, why in flags.items()]
    warnings += [
        f"Style `{e.name}`: {e.unscored} candidates have no score (what they generate is not numbers); they count as "
        "the worst of all."
        for e in evaluations
        if e.unscored
    ]
    return warnings + [
        f"Style `{e.name}`: {count} samples of asked-for performance have no loss; they are left out."
        for e in doses.with_doses(evaluations)
        if (count := doses.unscored(e))
    ]


def results_table(summary: Summary, inputs: Inputs) -> Table:
    """Arms x styles, the selected candidates, each with how far it is above the floor; the README shows it too."""
    picked = pivot(summary, "selected")
    keys = columns_of(inputs.evaluations)
    rows = [[arm, *(_above(row[k], picked["floor"][k], arm) for k in keys)] for arm, row in picked.items()]
    lowest = {k: min(round(row[k], 2) for arm, row in picked.items() if arm != "floor") for k in keys}
    best = frozenset(
        (i, j + 1)
        for i, (arm, row) in enumerate(picked.items())
        for j, k in enumerate(keys)
        if arm != "floor" and round(row[k], 2) == lowest[k]
    )
    caption = text.results(inputs.evaluations[0].metric, inputs.params.eval.images)
    return Table(caption, ["arm", *(k.replace("average", "mean") for k in keys)], rows, best, accent(rows))


def _above(value: float, floor: float, arm: str) -> str:
    return number(value) if arm == "floor" else f"{number(value)} ({signed(value - floor)})"


def _tiles(summary: Summary, control: str) -> list[tuple[str, str, str]]:
    average = {arm: row["average"] for arm, row in pivot(summary, "selected").items()}
    shown = dict.fromkeys(["original", "soup", control, "no_lora", "floor"])
    tiles = [("condpdiff", f"{average['condpdiff']:.2f}", "lower is better")]
    return tiles + [
        (arm, f"{average[arm]:.2f}", f"condpdiff {signed(average['condpdiff'] - average[arm])}") for arm in shown
    ]


def _results(inputs: Inputs, summary: Summary, comparisons: dict[str, Comparison], racing: bool) -> list[Block]:
    evaluations = inputs.evaluations
    shown = list({c.arm: c for c in comparisons.values()}.values())
    noun, label = text.noun(evaluations), evaluations[0].metric
    rows = [[e.name, *(str(c.tasks[e.name]) for c in shown)] for e in evaluations]
    if len(evaluations) > 1:
        rows.append([f"mean of {noun}", *(str(c.average) for c in shown)])
    rows.append(["verdict: condpdiff", *(c.average.word.split()[0] for c in shown)])
    columns = ["condpdiff", *(f"minus {c.arm}" for c in shown)]
    mean_and_verdict, foot = frozenset({len(rows) - 2, len(rows) - 1}), len(rows) - len(evaluations)
    differences = Table(text.DIFFERENCES, columns, rows, accent=mean_and_verdict, foot=foot)
    return [
        Text(text.rows_and_seeds(inputs.params, evaluations)),
        Figures(text.FOREST, [figures.forest(shown, label, noun)], wide=True),
        results_table(summary, inputs),
        differences,
        Figures(text.ARMS_RACING if racing else text.ARMS_FIGURE, [figures.arms(e) for e in evaluations]),
        Table(text.ARMS, ["arm", "what it is"], [[arm, what] for arm, what in ARMS.items()], numeric=False),
    ]


def _gallery(e: StyleEvaluation) -> Gallery:
    rows = [(prompt, [e.pictures[arm][i] for arm in SHOWN]) for i, prompt in enumerate(e.prompts)]
    columns = [f"real {e.name}", *SHOWN[1:]]
    return Gallery(text.gallery(e), ["prompt", *columns], rows, accent=1 + SHOWN.index("condpdiff"))


def _candidates(inputs: Inputs, summary: Summary) -> list[Block]:
    evaluations = inputs.evaluations
    if any(e.racing for e in evaluations):
        first: Block = Text(text.racing(evaluations))
    else:
        first = candidates_table(evaluations, summary, text.candidates(evaluations[0].metric))
    return [first, *_all_metrics(evaluations, summary)]


def _all_metrics(evaluations: list[StyleEvaluation], summary: Summary) -> list[Block]:
    """Nothing where every style has one metric."""
    cells = {(s.task, s.arm): s.row for s in summary}
    pairs = [(e, m) for e in evaluations for m in e.task.metrics]
    if len(pairs) == len(evaluations):
        return []

    def cell(e: StyleEvaluation, arm: str, metric: str) -> str:
        rows = candidates(e.scores, arm) if arm == "floor" else np.array([cells[e.name, arm]])
        return number(float(np.mean(column(e.scores, rows, f"validation_{metric}"))))

    rows = [[arm, *(cell(e, arm, m) for e, m in pairs)] for arm in ARMS]
    columns = ["arm", *(f"{e.name} {LABELS[m]}" for e, m in pairs)]
    return [Table(text.METRICS, columns, rows, accent=accent(rows))]


def _novelty(inputs: Inputs) -> list[Block]:
    evaluations, settings = inputs.evaluations, inputs.params.report
    ways = {e.name: e.trajectories for e in evaluations if has_noises(e.trajectories)}
    caption = text.NOVELTY + CORRELATION + (NOVELTY_RACING if any(e.racing for e in evaluations) else "")
    return [
        spread_table(evaluations),
        distance_table(evaluations),
        Figures(caption, [figures.novelty(e) for e in evaluations]),
        Figures(TSNE, [tsne(e, settings.perplexity, settings.seed) for e in evaluations]),
        *followed(ways, settings.perplexity, settings.seed),
    ]


def _doses(inputs: Inputs) -> list[Section]:
    """Nothing where no performance was asked for."""
    if not doses.with_doses(inputs.evaluations):
        return []
    blocks = doses.blocks(inputs.evaluations, inputs.zoo_losses, inputs.params.ldm.performance)
    return [Section("doses", "Asked-for against obtained performance", [Text(text.DOSES), *blocks])]


def _base(base: BaseModel | None) -> list[Section]:
    """Nothing for a base model that was trained elsewhere."""
    if base is None:
        return []
    curves = [figures.curve(*curve, f"base-{title.split()[-1].lower()}", title) for title, curve in base.curves.items()]
    blocks: list[Block] = [Figures(text.BASE, [base.sheet], wide=True), Figures(text.BASE_CURVES, curves)]
    return [Section("base", "The base model", blocks)]


def _training(inputs: Inputs) -> list[Block]:
    opens = {e.name: e.task.finetune.steps for e in inputs.evaluations}
    held = inputs.finetune_validation.assign(loss=-inputs.finetune_validation["score"])
    label = "denoising loss"
    finetune = [
        figures.task_curves(inputs.finetune_loss, "loss", "finetune-loss", f"{label}, training", opens, smooth=15),
        figures.task_curves(held, "loss", "finetune-validation", f"{label}, validation", opens),
    ]
    return training(Figures(text.FINETUNE, finetune), inputs.autoencoder, inputs.ldm)


def _paper(paper: pd.DataFrame) -> list[Block]:
    arms = ["condpdiff", "original", "soup", "no_lora"]
    average = paper.loc[paper["style"] == "Average"].iloc[0]
    rows = [[str(row["style"]), *(number(float(row[arm])) for arm in arms)] for _, row in paper.iterrows()]
    gain, bare = (signed(average[arm] - average["original"]) for arm in ("condpdiff", "no_lora"))
    return [Text(text.PAPER.format(gain=gain, bare=bare)), Table(text.PAPER_TABLE, ["style", *arms], rows, foot=1)]


def _settings(inputs: Inputs) -> list[Block]:
    rows = [
        [
            e.name, e.task.condition.description, _source(e), f"{e.task.data.size} x {e.task.data.size}",
            str(e.task.finetune.steps), str(e.task.finetune.batch_size), f"{e.task.finetune.lr:g}",
        ]
        for e in inputs.evaluations
    ]  # fmt: skip
    columns = ["style", "description", "images", "pixels", "steps", "batch", "LoRA lr"]
    return [
        Text(made_at(inputs.revision)),
        Table(text.SETTINGS, columns, rows),
        Verbatim("params.yaml", inputs.params_text.strip()),
    ]


def _source(e: StyleEvaluation) -> str:
    source = e.task.data.source
    if source.type != "rendered":
        return source.type
    return f"rendered: {source.renderer}" + ("" if source.index is None else f" {source.index}")
