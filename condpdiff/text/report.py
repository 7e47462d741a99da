"""What text tasks add to the report: paired intervals over validation rows, the paper's rule, overlaps of mistakes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from condpdiff.common.errors import UserError
from condpdiff.experiments.params import Params
from condpdiff.report.arms import CONTROLS, OURS
from condpdiff.report.blocks import Block, Figures, Table, Text, number, signed
from condpdiff.report.evaluation import (
    AVERAGE,
    Comparison,
    Difference,
    Evaluation,
    Scale,
    Spec,
    Summary,
    arm_table,
    averages,
    candidates,
    columns_of,
    pivot,
    read_arrays,
    read_csv,
)
from condpdiff.report.novelty_section import CORRELATION, against_score
from condpdiff.text.resampling import RESAMPLES, Outputs, compare
from condpdiff.text.task import Task

PAPER = Path("configs/paper/table1_glue.csv")
PAPER_RULE = (
    "The paper picks `original` on validation itself and condpdiff on train; we pick every arm on "
    "training rows that fine-tuning never saw. "
    "The paper's rule favours `original`; the other arms are picked alike under both."
)
OVERLAP = (
    "Largest IoU of an arm's wrong predictions with those of any other scored checkpoint, mean over its candidates: "
    "1 means the same mistakes. Classification only."
)
MISTAKES = (
    "Largest IoU of a candidate's wrong predictions with those of any other scored checkpoint against its validation "
    "score: at the right the same mistakes as some checkpoint, at the left mistakes of its own."
)
PAPER_SAYS = (
    "These are the paper's numbers, on GLUE and with other models, rows and heads: **they are not comparable with "
    "ours**. They show what size of difference the paper reports: over its {cells} cells with a LoRA rank, condpdiff "
    "lies {gain:+.3f} points from `original` on average."
)
PAPER_TABLE = "Mean over six GLUE tasks, in percent, from Table 1 of arXiv 2408.01415."


class TextSpec(Spec):
    """Scores in percent, of which higher is better."""

    scale = Scale(
        axis="{metric} on validation, %",
        bare={
            "majority": "the most frequent class of the training rows (regression: their mean), no model",
            "no_lora": "the base model with the task's trained head and no LoRA",
        },
    )
    interval = (
        "The bars are 95 % intervals; one that holds 0 means that these validation rows cannot tell the two apart."
    )
    differences = (
        f"The same differences in points, with 95 % intervals from {RESAMPLES:,} paired resamples of the validation "
        "rows (and, for means, of each arm's candidates). The intervals cover the choice of validation rows, not a "
        "second training run."
    )
    all_metrics = "All metrics of the same selected candidates, in percent (Matthews, Pearson and Spearman times 100)."
    nonsense = "descriptions of random words"

    def __init__(self, tasks: Mapping[str, Task], data: Path) -> None:
        super().__init__(tasks, data)
        self.outputs = {e.name: read_outputs(data / "eval" / e.name, len(e.scores)) for e in self.evaluations}

    def why_not_learned(self, e: Evaluation, margin: float) -> str:
        """The checkpoints score as a constant does, or hardly above it or the base model; the margin is in points."""
        values, best, floor = e.values("original"), e.picked("original"), e.picked("majority")
        constant = "the majority class" if e.task.data.kind == "classification" else "a constant"
        if np.allclose(values, floor, rtol=0, atol=1e-6):
            return f"collapsed: all {len(values)} scored checkpoints score as {constant} does ({floor:.1f})"
        for other, score in ((constant, floor), ("the base model without LoRA", e.picked("no_lora"))):
            if best <= score or best - score < margin:
                return f"the selected checkpoint ({best:.1f}) is not {margin:g} points above {other} ({score:.1f})"
        return ""

    def compare(self, summary: Summary, arm: str, seed: int) -> Comparison:
        return compare(self.evaluations, self.outputs, arm, seed)

    def comparisons(self, summary: Summary, seed: int) -> dict[str, Comparison]:
        """Means too."""
        mean = compare(self.evaluations, self.outputs, "original", seed, means=True)
        return super().comparisons(summary, seed) | {"mean": mean}

    def said(self, difference: Difference) -> str:
        value, low, high = map(signed, (difference.value, difference.low, difference.high))
        return f"{value} points, 95 % interval {low} to {high}"

    def qualified(self, comparisons: Mapping[str, Comparison], summary: Summary) -> list[str]:
        """Mean against mean, so that no selection enters."""
        means, control, mean = comparisons["mean"].average, comparisons["control"], averages(summary, "mean")
        lines = [
            f"Mean against mean, a generated candidate ({mean[OURS]:.2f}) **{means.word}** "
            f"a single checkpoint ({mean['original']:.2f}): {self.said(means)}."
        ]
        if means.word == "beats" and control.average.word != "beats":
            without = f"Since {control.arm} is not measurably worse without a trained generator"
            lines.append(f"{without}, that gain does not speak for one.")
        return lines

    def measured(self, params: Params) -> str:
        rows = ", ".join(f"{name} {len(labels)}" for name, (_, labels) in self.outputs.items())
        return f"Validation rows: {rows}. Candidates are selected on {params.eval.select_rows} held-out training rows."

    def results(self, params: Params) -> str:
        return (
            "Validation score in percent of each arm's selected candidate: the one that is best on held-out training "
            "rows. Every arm of a task is scored with the same frozen head. Bold: highest in its column."
        )

    def rules(self, summary: Summary) -> list[Block]:
        """The paper's rule, which picks original on validation."""
        picked = pivot(summary, "selected").to_dict()
        original = {e.name: float(e.values("original").max()) for e in self.evaluations}
        original[AVERAGE] = float(np.mean(list(original.values())))
        arms = {
            "original, picked on held-out rows (ours)": picked["original"],
            "original, picked on validation (paper)": original,
            "soup": picked["soup"],
            "condpdiff, picked on held-out rows": picked[OURS],
        }
        shown = columns_of(self)
        rows = [[name, *(number(row[t], 1) for t in shown)] for name, row in arms.items()]
        rows.append(["condpdiff minus original, paper's rule", *(signed(picked[OURS][t] - original[t]) for t in shown)])
        columns = ["arm and rule", *(t.replace(AVERAGE, "mean") for t in shown)]
        return [Table(PAPER_RULE, columns, rows, accent=frozenset({3}))]

    def novelty(self) -> list[Block]:
        """Do the generated weights make the same mistakes as a checkpoint?"""
        drawn = [e for e in self.evaluations if e.task.data.kind == "classification"]
        if not drawn:
            return []
        overlaps = {e.name: wrong_overlaps(e, *self.outputs[e.name]) for e in self.evaluations}

        def mean(e: Evaluation, arm: str) -> str:
            return number(float(overlaps[e.name][candidates(e.scores, arm).index].mean()))

        images = []
        for e in drawn:
            shown = np.where(e.scores["arm"].isin(self.scale.bare), np.nan, overlaps[e.name])
            alt = f"{e.name}: largest overlap of mistakes with those of a checkpoint against {e.metric}"
            label = "largest IoU of mistakes with a checkpoint's"
            images.append(against_score(e, shown, f"mistakes-{e.name}", label, alt))
        table = arm_table(self, OVERLAP, ("original", *CONTROLS, OURS), mean)
        return [table, Figures(MISTAKES + CORRELATION, images)]

    def paper(self) -> list[Block]:
        arms = ["condpdiff", "original", "soup"]
        ranks = read_csv(PAPER, ["model", "rank", "task", *arms]).dropna(subset="condpdiff")
        average = ranks["task"] == "Average"
        gain = (ranks["condpdiff"] - ranks["original"])[~average]
        models = ranks[average].to_dict("records")
        rows = [[f"{row['model']}, rank {row['rank']}", *(f"{row[arm]:.1f}" for arm in arms)] for row in models]
        says = PAPER_SAYS.format(cells=len(gain), gain=float(gain.mean()))
        return [Text(says), Table(PAPER_TABLE, ["model", *arms], rows)]

    def task_settings(self, e: Evaluation) -> dict[str, str]:
        (_, labels), fine = self.outputs[e.name], e.task.finetune
        return {
            "kind": e.task.data.kind, "metrics": ", ".join(e.task.metrics), "validation rows": str(len(labels)),
            "steps": str(fine.steps), "batch": str(fine.batch_size), "LoRA lr": f"{fine.lr:g}",
            "head lr": f"{fine.head_lr:g}",
        }  # fmt: skip


def read_outputs(folder: Path, rows: int) -> Outputs:
    """What the model said on the validation rows, of every one of the `rows` of scores.csv, or a UserError."""
    path = folder / "predictions.safetensors"
    predictions, labels = read_arrays(path, ["predictions", "labels"])
    if predictions.shape != (rows, len(labels)):
        needed = f"[{rows} rows of scores.csv, {len(labels)} labels]"
        raise UserError(f"{path}: predictions are {list(predictions.shape)}, needed: {needed}")
    return predictions, labels


def wrong_overlaps(e: Evaluation, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each candidate's largest IoU of wrong predictions with any *other* scored checkpoint: [R].

    The novelty measure of p-diff: 1 means the same mistakes as some checkpoint. Classification only (else NaN); NaN
    also for a lone checkpoint, which there is no other to hold against.
    """
    if e.task.data.kind != "classification":
        return np.full(len(e.scores), np.nan)
    wrong = (predictions != labels).astype(np.float64)  # [R, V]
    zoo = candidates(e.scores, "original").index
    both = wrong @ wrong[zoo].T  # [R, zoo]
    either = wrong.sum(1)[:, None] + wrong[zoo].sum(1)[None, :] - both
    iou = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    iou[zoo, np.arange(len(zoo))] = -1.0  # not with itself
    best = iou.max(axis=1)
    return np.where(best < 0, np.nan, best)


spec = TextSpec  # what `domain.ReportModule` asks for
