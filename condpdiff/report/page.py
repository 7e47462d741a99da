"""The report of a run of tasks: sections in their order, and what stands above them; and the files of any report."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from condpdiff.common.files import new_directory, write_json
from condpdiff.common.settings import PARAMS
from condpdiff.experiments.params import Params
from condpdiff.report import condition_section, doses_section, evaluation, novelty_section, studies_section
from condpdiff.report.arms import BARE, CONTROLS, OURS, WHAT
from condpdiff.report.blocks import Block, Figures, Report, Section, Table, Text, best, number, signed
from condpdiff.report.evaluation import AVERAGE, WORDS, Comparison, Evaluation, Summary, label_of, pivot, shown
from condpdiff.report.images import DASHED, LIGHT, Image, colour, figure, image, jitter, marker, named_rows, styled
from condpdiff.text.resampling import RESAMPLES, compare
from condpdiff.zoo.settings import SHARED

WATCHED = ("condpdiff", "stages", "configs", "params.yaml", "dvc.yaml")
"""What a result depends on; dvc.lock and the metrics change with every run."""


def build(tasks: Mapping[str, Any], data: Path, params: Params) -> Report:
    """Read `data/eval/<task>/` of every task, select, compare and draw; a further section has its line here."""
    evaluations = [evaluation.read_evaluation(data / "eval" / name, task) for name, task in tasks.items()]
    summary, margin = evaluation.summarise(evaluations), params.report.learned_margin
    flags = {e.name: why for e in evaluations if (why := why_not_learned(e, margin))}
    comparisons = compared(evaluations, summary, params.report.seed)
    control = comparisons["control"]
    table = selected_table(evaluations, summary, params.normalize.method in SHARED)
    probed = condition_section.read_probe(data / "probe")
    columns = {"task": "task", "arm": "arm", "selected": "score", "mean": "mean", "worst": "low", "best": "high"}
    return Report(
        verdict=verdict(comparisons, summary, flags) + condition_section.verdict(probed),
        word=control.average.word,
        tiles=_tiles(summary, control.arm),
        warnings=_warnings(evaluations, flags),
        sections=[
            _results(evaluations, params, comparisons, table),
            _candidates(evaluations, summary),
            novelty_section.section(evaluations, params),
            *doses_section.sections(evaluations, params, data),
            *condition_section.sections(probed, label_of(evaluations), params.normalize.method),
            *studies_section.sections(),
            studies_section.paper(),
            settings_section(_tasks(evaluations)),
        ],
        table=table,
        metrics=evaluation.metrics(summary, flags) | condition_section.effect(probed),
        plots={
            "arms": summary[list(columns)].rename(columns=columns).round(4),
            "doses": doses_section.frame(evaluations),
            "finetune_loss": training_curve(list(tasks), data, "loss.csv", "loss"),
            "finetune_validation": training_curve(list(tasks), data, "validation.csv", "score"),
        },
    )


def why_not_learned(e: Evaluation, margin: float) -> str:
    """The checkpoints score as a constant does, or hardly above it or the base model; the margin is in points."""
    values, best, floor = e.values("original"), e.picked("original"), e.picked("majority")
    constant = "the majority class" if e.task.data.kind == "classification" else "a constant"
    if np.allclose(values, floor, rtol=0, atol=1e-6):
        return f"collapsed: all {len(values)} scored checkpoints score as {constant} does ({floor:.1f})"
    for other, score in ((constant, floor), ("the base model without LoRA", e.picked("no_lora"))):
        if best <= score or best - score < margin:
            return f"the selected checkpoint ({best:.1f}) is not {margin:g} points above {other} ({score:.1f})"
    return ""


def compared(evaluations: Sequence[Evaluation], summary: Summary, seed: int) -> dict[str, Comparison]:
    """Selected candidates: condpdiff minus `control`, `soup` and `original`; and `mean`: of all, minus `original`.

    The control is the one with the best average over tasks, picked with hindsight: the hardest one to beat.
    """
    control = max(CONTROLS, key=pivot(summary, "selected").T[AVERAGE].__getitem__)
    arms = {"control": control, "soup": "soup", "original": "original"}
    found = {key: compare(evaluations, arm, seed) for key, arm in arms.items()}
    return found | {"mean": compare(evaluations, "original", seed, means=True)}


def training_curve(tasks: list[str], data: Path, file: str, y: str) -> pd.DataFrame:
    """`data/zoo/<task>/<file>` of all tasks in one frame, for `dvc plots`: task, step, <y>."""
    columns = ["task", "step", y]
    return pd.concat(evaluation.read_csv(data / "zoo" / task / file, columns)[columns] for task in tasks)


def settings_section(*blocks: Block) -> Section:
    """Git revision and params.yaml, with other blocks between them."""
    made, text = f"Git revision that the report was made at: {revision()}.", PARAMS.read_text(encoding="utf-8")
    return Section("settings", "Settings", [Text(made), *blocks, Text(text.strip(), file="params.yaml")])


def revision() -> str:
    """Commit of the working directory, and whether code or settings differ from it; `unknown` without Git."""
    quiet: Any = {"text": True, "stderr": subprocess.DEVNULL}
    try:
        commit = subprocess.check_output(["git", "rev-parse", "--short=12", "HEAD"], **quiet).strip()
        changed = subprocess.check_output(["git", "status", "--porcelain", "--", *WATCHED], **quiet)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"`{commit}`" + (" with uncommitted changes" if changed else "")


def write(out: Path, report: Report, settings: str) -> None:
    """A report's files; its warnings go to stderr too. `settings` is the fingerprint in metrics.json."""
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


def verdict(comparisons: Mapping[str, Comparison], summary: Summary, flags: Mapping[str, str]) -> list[str]:
    """The figures in words: the first sentence is the verdict, the others qualify it."""
    picked, control, soup = pivot(summary, "selected").T[AVERAGE], comparisons["control"], comparisons["soup"]
    n = len(control.tasks)
    over = f"Over the mean of {n} tasks" if n > 1 else f"On {next(iter(control.tasks))}"
    lines = [
        f"{over}, condpdiff ({picked['condpdiff']:.2f}) **{control.average.word}** the best control, "
        f"{control.arm} ({picked[control.arm]:.2f}): difference {control.average.said}."
    ]
    if control.arm != "soup":
        lines.append(f"It **{soup.average.word}** soup ({picked['soup']:.2f}): {soup.average.said}.")
    if n > 1:
        beats, ties, loses = ([d.word for d in control.tasks.values()].count(w) for w in WORDS)
        each = f"Task by task it beats {control.arm} on {beats}"
        lines.append(f"{each}, ties on {ties} and loses on {loses} of {n}.")
    means, mean = comparisons["mean"].average, pivot(summary, "mean").T[AVERAGE]  # no selection enters
    lines.append(
        f"Mean against mean, a generated candidate ({mean[OURS]:.2f}) **{means.word}** "
        f"a single checkpoint ({mean['original']:.2f}): {means.said}."
    )
    if means.word == "beats" and control.average.word != "beats":
        without = f"Since {control.arm} is not measurably worse without a trained generator"
        lines.append(f"{without}, that gain does not speak for one.")
    if flags:
        were, them = ("task was", "it") if len(flags) == 1 else ("tasks were", "them")
        lines.append(f"{len(flags)} of {n} {were} not learned ({', '.join(flags)}); the averages include {them}.")
    return lines


def _tiles(summary: Summary, control: str) -> list[tuple[str, str, str]]:
    average, others = pivot(summary, "selected").T[AVERAGE], dict.fromkeys(["soup", control, "original", "no_lora"])
    return [("condpdiff", f"{average['condpdiff']:.1f}", "selected on held-out rows")] + [
        (arm, f"{average[arm]:.1f}", f"condpdiff {signed(average['condpdiff'] - average[arm])}") for arm in others
    ]


def _warnings(evaluations: Sequence[Evaluation], flags: Mapping[str, str]) -> list[str]:
    warnings = [f"Task `{name}` was not learned: {why}." for name, why in flags.items()]
    lost = "candidates have no score (what they give is no number); they count as 0"
    warnings += [f"Task `{e.name}`: {e.unscored} {lost}." for e in evaluations if e.unscored]
    lost = "samples of asked-for performance have no loss; they are left out"
    counts = {e.name: doses_section.samples(e)["loss"].isna().sum() for e in evaluations}
    return warnings + [f"Task `{name}`: {count} {lost}." for name, count in counts.items() if count]


def _results(
    evaluations: Sequence[Evaluation], params: Params, comparisons: Mapping[str, Comparison], table: Table
) -> Section:
    """The comparison itself; `table` is of the selected candidates."""
    selected = list({c.arm: c for key, c in comparisons.items() if key != "mean"}.values())
    p, rows = params, ", ".join(f"{e.name} {len(e.labels)}" for e in evaluations)
    said = (
        f"Validation rows: {rows}. Candidates are selected on {p.eval.select_rows} held-out training rows. "
        f"{p.sample.count} samples a task from noise, {p.normalize.n_checkpoints} checkpoints a task, LoRA rank "
        f"{p.collect.rank}. One run; seeds: data {p.data.seed}, collect {p.collect.seed}, autoencoder {p.ae.seed}, "
        f"diffusion {p.ldm.seed}, sample {p.sample.seed}, eval {p.eval.seed}, report {p.report.seed}."
    )
    forest = "condpdiff minus the other arm, selected candidates: **right of 0 condpdiff is better**. The bars "
    forest += "are 95 % intervals; one that holds 0 means that these validation rows cannot tell the two apart."
    arms = "Scores of all candidates that have one (dots), their mean (bar) and the selected one (diamond, and figure "
    arms += "at the right). Dashed: soup. Arms out of the range are arrows."
    blocks: list[Block] = [
        Text(said),
        Figures(forest, [draw_differences(selected)], wide=True),
        table,
        _differences({f"minus {c.arm}": c for c in selected} | {"mean minus mean original": comparisons["mean"]}),
        Figures(arms, [draw_arms(e) for e in evaluations]),
        Table("What each arm is.", ["arm", "what it is"], list(WHAT.items()), numeric=False),
    ]
    return Section("results", "What beats what", blocks)


def selected_table(evaluations: Sequence[Evaluation], summary: Summary, shared: bool) -> Table:
    """Arms x tasks, the selected candidates, for page and README.

    Where all tasks share one frame, the paper's variant stands below, if a study has it.
    """
    picked, headings = shown(summary, "selected").T, {e.name: f"{e.name} ({e.metric})" for e in evaluations}
    bold = best(picked.round(1).to_numpy())
    caption = (
        "Validation score in percent of each arm's selected candidate: the one that is best on held-out training "
        "rows. Every arm of a task is scored with the same frozen head. Bold: highest in its column."
    )
    variant, seeds = studies_section.papers_variant([*headings])
    if len(variant) and shared:
        picked.loc[f"{OURS}, paper's variant"] = [variant.get(task, variant.mean()) for task in picked]
        caption += f" Last row: a task's own statistics choose it (study `frame`, mean over {seeds} seeds)."
    cells = picked.map(number, decimals=1).rename(columns=headings | {AVERAGE: "mean"})
    return Table.of(caption, "arm", cells, bold=bold)


def _differences(columns: Mapping[str, Comparison]) -> Table:
    cells = pd.DataFrame({name: pd.Series(c.rows).map(str) for name, c in columns.items()})
    foot = 1 + (len(cells) > 1)
    cells.loc["verdict: condpdiff"] = [c.average.word.split()[0] for c in columns.values()]
    caption = (
        f"The same differences in points, with 95 % intervals from {RESAMPLES:,} paired resamples of the validation "
        "rows (and, for means, of each arm's candidates). The intervals cover the choice of validation rows, not a "
        "second training run. The best control was picked with hindsight, which favours it. The last column compares "
        "means over all candidates, so that no selection enters."
    )
    return Table.of(caption, "condpdiff", cells, accent=frozenset({len(cells) - 2, len(cells) - 1}), foot=foot)


def _candidates(evaluations: Sequence[Evaluation], summary: Summary) -> Section:
    """All candidates of every arm, and what the paper's rule, which picks original on validation, makes of them."""
    said = summary[["mean", "std", "best"]].map(number, decimals=1)
    spread = (" ± " + said["std"] + " (" + said["best"] + ")").where(summary["candidates"] > 1, "")
    cells = summary.assign(said=said["mean"] + spread).pivot(index="arm", columns="task", values="said")
    most = summary.groupby("arm", sort=False)["candidates"].max()
    cells = cells.loc[most.index, [e.name for e in evaluations]]
    cells.insert(0, "candidates", most.astype(str))
    label = label_of(evaluations)
    caption = f"{label[0].upper()}{label[1:]}: mean ± sample standard deviation over an arm's candidates "
    table = Table.of(caption + "(best in brackets).", "arm", cells)
    picked, highest = shown(summary, "selected"), shown(summary, "best")["original"]
    arms = {
        "original, picked on held-out rows (ours)": picked["original"],
        "original, picked on validation (paper)": highest,
        "soup": picked["soup"],
        "condpdiff, picked on held-out rows": picked[OURS],
    }
    cells = pd.DataFrame(arms).map(number, decimals=1)
    cells["condpdiff minus original, paper's rule"] = (picked[OURS] - highest).map(signed)
    caption = (
        "The paper picks `original` on validation itself and condpdiff on train; we pick every arm on training rows "
        "that fine-tuning never saw. The paper's rule favours `original`; the other arms are picked alike under both."
    )
    rule = Table.of(caption, "arm and rule", cells.T.rename(columns={AVERAGE: "mean"}), accent=frozenset({3}))
    return Section("candidates", "All candidates, and the paper's rule", [table, rule, *_all_metrics(evaluations)])


def _all_metrics(evaluations: Sequence[Evaluation]) -> list[Block]:
    """Nothing where every task has one metric."""
    columns = [(e, metric) for e in evaluations for metric in e.task.metrics]
    if len(columns) == len(evaluations):
        return []
    rows = [[arm, *(number(e.picked(arm, f"validation_{metric}"), 1) for e, metric in columns)] for arm in WHAT]
    caption = "All metrics of the same selected candidates, in percent (Matthews, Pearson and Spearman times 100)."
    return [Table(caption, ["arm", *(f"{e.name} {metric}" for e, metric in columns)], rows)]


def _tasks(evaluations: Sequence[Evaluation]) -> Table:
    rows = {
        e.name: {
            "kind": e.task.data.kind, "metrics": ", ".join(e.task.metrics), "validation rows": str(len(e.labels)),
            "steps": str(e.task.finetune.steps), "batch": str(e.task.finetune.batch_size),
            "LoRA lr": f"{e.task.finetune.lr:g}", "head lr": f"{e.task.finetune.head_lr:g}",
        }
        for e in evaluations
    }  # fmt: skip
    caption = "The tasks, from `configs/tasks/`; steps are those before the collection window opens."
    return Table.of(caption, "task", pd.DataFrame(rows).T)


@styled
def draw_arms(e: Evaluation) -> Image:
    """One row an arm: candidates as dots, mean as a bar, the selected one as a diamond, or an arrow at the edge."""
    names = list(WHAT)
    fig, (ax,) = figure(0.9 + 0.27 * len(names))
    values = {arm: e.values(arm) for arm in names}
    shown = np.concatenate([v for arm, v in values.items() if arm not in BARE])
    pad = max(0.06 * np.ptp(shown), 0.25)
    low, high = shown.min() - pad, shown.max() + pad
    ax.axvline(values["soup"][0], color=colour("soup"), lw=1, ls=DASHED, zorder=1)
    for y, arm in enumerate(names):
        v, picked, c = values[arm], e.picked(arm), colour(arm)
        if not low <= picked <= high:
            edge = np.clip(picked, low + pad / 5, high - pad / 5)
            ax.plot(edge, y, "<" if picked < low else ">", color=c, ms=5, clip_on=False)
        else:
            if len(v) > 1:
                ax.scatter(v, y + 0.26 * jitter(np.arange(len(v))), s=11, color=c, alpha=0.45, linewidths=0, zorder=2)
                ax.plot([v.mean()] * 2, [y - 0.34, y + 0.34], color=c, lw=2, solid_capstyle="butt", zorder=3)
            ax.plot(picked, y, "D", ms=5.5, mfc=c, mec=LIGHT["panel"], mew=1, zorder=4)
        at, weight = ax.get_yaxis_transform(), "bold" if arm == OURS else "normal"
        ax.text(1.02, y, f"{picked:.1f}", transform=at, va="center", fontsize=8, fontweight=weight)
    ax.set(xlim=(low, high), xlabel=e.label, title=e.name)
    named_rows(ax, names, names.index(OURS))
    said = ", ".join(f"{arm} {e.picked(arm):.1f}" for arm in names)
    return image(fig, f"arms-{e.name}", f"{e.name}: {e.metric} of every arm; selected candidates: {said}")


@styled
def draw_differences(comparisons: Sequence[Comparison]) -> Image:
    """condpdiff minus each other arm with its interval, for each task and for their mean."""
    rows = list(comparisons[0].rows)
    several = len(rows) > 1
    fig, (ax,) = figure(1.0 + (0.13 * len(comparisons) + 0.1) * len(rows), width=4.4)
    ax.axvline(0, color=LIGHT["ink"], lw=1)
    for j, c in enumerate(comparisons):
        x, *interval = np.array([*c.rows.values()]).T
        y = np.arange(len(rows)) + (j - (len(comparisons) - 1) / 2) * 0.21
        look: Any = {"fmt": marker(c.arm), "color": colour(c.arm), "ms": 5.5, "mec": LIGHT["panel"], "mew": 0.7}
        ax.errorbar(x, y, xerr=np.abs(interval - x), lw=1.6, label=f"minus {c.arm}", **look)
    if several:
        ax.axhspan(len(rows) - 1.5, len(rows) - 0.5, color=LIGHT["line"], alpha=0.55, lw=0, zorder=0)
    named_rows(ax, rows, -1, pad=0.5 if several else 0.7)
    ax.set_xlabel("condpdiff minus the other arm, points")
    alt = "; ".join(f"condpdiff minus {c.arm}: {c.average}" for c in comparisons)
    said = f"Differences between selected candidates, mean of tasks: {alt}"
    return image(fig, "differences", said, legend=len(comparisons))
