"""The report's captions: what each figure is, on how many rows, and what it does not show."""

from condpdiff.experiments.params import Params
from condpdiff.report.compare import RESAMPLES
from condpdiff.report.tables import Evaluation

HEALTHY = 0.5
"""Spread of the samples over the zoo's below which they are near copies of one vector."""

RESULTS = (
    "Validation score in percent of each arm's selected candidate: the one that is best on held-out training rows. "
    "Every arm of a task is scored with the same frozen head. Bold: highest in its column."
)
FOREST = (
    "condpdiff minus the other arm, selected candidates, with 95 % intervals: right of 0 condpdiff is better. "
    "An interval that holds 0 means that these validation rows cannot tell the two apart."
)
DIFFERENCES = (
    f"The same differences in points, with 95 % intervals from {RESAMPLES:,} paired resamples of the validation rows "
    "(and, for means, of each arm's candidates). "
    "The intervals cover the choice of validation rows, not a second training run. The best control was picked with "
    "hindsight, which favours it."
)
DIFFERENCES_MEAN = " The last column compares means over all candidates, so that no selection enters."
RACING_FIGURE = (
    "Validation score of each arm's selected candidate (diamond, and the figure at the right), the only one of its arm "
    "that was scored. Dashed: soup. Arms left of the range are arrows."
)
ARMS_FIGURE = (
    "Validation scores of every candidate (dots), their mean (bar) and the selected one (diamond, and the figure at "
    "the right). Dashed: soup. Arms left of the range are arrows."
)
RULES, RULES_RACING = "All candidates, and the paper's rule", "What racing leaves out"
CANDIDATES = (
    "Validation score in percent, mean ± sample standard deviation over an arm's candidates (best in brackets)."
)
PAPER_RULE = (
    "The paper picks `original` on validation itself and condpdiff on train; we pick every arm on "
    "training rows that fine-tuning never saw. "
    "The paper's rule favours `original`; the other arms are picked alike under both."
)
ALL_METRICS = "All metrics of the same selected candidates, in percent (Matthews, Pearson and Spearman times 100)."
SPREAD = (
    "Spread of an arm's candidates (root mean square distance to their own mean) over that of the zoo. From "
    f"{HEALTHY:g} up it is healthy; below, the candidates are near copies of one vector."
)
DISTANCE = (
    "Median L2 from an arm's candidates to the nearest checkpoint (a checkpoint: to the nearest other one), "
    "and between consecutive checkpoints."
)
OVERLAP = (
    "Largest IoU of an arm's wrong predictions with those of any other scored checkpoint, mean over its candidates: "
    "1 means the same mistakes. Classification only."
)
NOVELTY_FIGURE = (
    "Distance to the nearest checkpoint against validation score. Dotted: one step of fine-tuning (the median distance "
    "of consecutive checkpoints). Soup and Gaussian also lie away from every checkpoint: distance alone is not novelty."
)
CORRELATION = " ρ: Spearman's correlation of the two over condpdiff's candidates."
MISTAKES = (
    "Largest IoU of a candidate's wrong predictions with those of any other scored checkpoint against its validation "
    "score: at the right the same mistakes as some checkpoint, at the left mistakes of its own." + CORRELATION
)
NOVELTY_RACING = " The selected candidates alone: no other was scored."
TSNE = (
    "t-SNE of the distances between weight vectors. Consecutive checkpoints are near copies, so they form a thread; "
    "anything off the thread, soup and Gaussian noise included, may form a cluster of its own: a separate cluster is "
    "not novelty. What is seen at one perplexity or seed and not at the others is t-SNE's doing."
)
TRAJECTORIES = (
    "t-SNE of what noises become on the way to a LoRA, decoded at a few denoising steps, among the zoo's checkpoints "
    "and their soup. A line is one noise; its first point is decoded from pure noise. t-SNE shows who is near whom, "
    "not how far."
)
FINETUNE = (
    "Fine-tuning: running mean of the training loss, and the validation score (each task's first metric). "
    "The tick at the bottom is where the task's collection window opens."
)
NETWORKS = "The generator's two networks; faint: single batches, strong: their running mean."
PAPER_TABLE = "Mean over six GLUE tasks, in percent, from Table 1 of arXiv 2408.01415."


def racing(evaluations: list[Evaluation]) -> str:
    """Why some figures are not there, and what that saved."""
    done, full = (sum(counts[k] for e in evaluations for counts in e.passes.values()) for k in ("done", "full"))
    return (
        "Candidates were selected by racing (`eval.select`), which scores each arm's selected candidate alone on "
        "validation: what needs the scores of all candidates (their mean, deviation and best, the paper's own rule, "
        f"overlaps of mistakes) is left out. {done:,} rows went through the models in place of {full:,}."
    )


def rows_and_seeds(p: Params, evaluations: list[Evaluation]) -> str:
    """How many rows and candidates stand behind the figures, and which seeds."""
    rows = ", ".join(f"{e.name} {len(e.labels)}" for e in evaluations)
    return (
        f"Validation rows: {rows}. Candidates are selected on {p.eval.select_rows} held-out training rows. "
        f"{p.sample.count} samples a task from noise, {p.normalize.n_checkpoints} checkpoints a task, LoRA rank "
        f"{p.collect.rank}. One run; seeds: data {p.data.seed}, collect {p.collect.seed}, autoencoder {p.ae.seed}, "
        f"diffusion {p.ldm.seed}, sample {p.sample.seed}, eval {p.eval.seed}, report {p.report.seed}."
    )


def paper(cells: int, gain: float) -> str:
    return (
        "These are the paper's numbers, on GLUE and with other models, rows and heads: **they are not comparable with "
        "ours**. They show what size of difference the paper reports: over its "
        f"{cells} cells with a LoRA rank, condpdiff lies {gain:+.3f} points from `original` on average."
    )


def made_at(revision: str) -> str:
    return f"Git revision that the report was made at: {revision}."
