"""Captions of the report on styles: what each figure is, and what it does not show."""

from collections.abc import Sequence

from condpdiff.experiments.params import Params
from condpdiff.report.style_tables import SHOWN, StyleEvaluation

FOREST = (
    "condpdiff minus the other arm, selected candidates: **left of 0 condpdiff is better**. The bars are the spread of "
    "candidates (the larger of the two arms' standard deviations) to either side; one that holds 0 is called a tie."
)
DIFFERENCES = (
    "The same differences, negative where condpdiff is better, and the range that the spread of candidates gives "
    "them. The spread is that of weights: every candidate is given the same prompts and the same noise, and images "
    "were not resampled, so it is no confidence interval. The best control was picked with hindsight, which favours it."
)
ARMS_RACING = (
    "Distance of each arm's selected candidate (diamond, and the figure at the right), the only one of its arm that "
    "images were generated with. Dashed: soup. Arms out of the range are arrows."
)
ARMS_FIGURE = (
    "Distances of every candidate (dots), their mean (bar) and the selected one (diamond, and the figure at the "
    "right). Dashed: soup. Arms out of the range are arrows."
)
ARMS = "What each arm is. All but the floor generate from the same prompts and the same noise."
METRICS = "All distances of the same selected candidates, lower is better."
NOVELTY = (
    "Distance to the nearest checkpoint against the distance to the style's images, lower is better. Dotted: one step "
    "of fine-tuning (the median distance of consecutive checkpoints). Soup and Gaussian also lie away from every "
    "checkpoint: distance alone is not novelty."
)
DOSES = (
    "Loss is the denoising loss on held-out images of the style; what asking brings to the images themselves was not "
    "measured."
)
BASE = (
    "The base model before any LoRA, one of its photographs a column. From the top: a real crop, the same through the "
    "image autoencoder, and images generated from the crop's caption. **It is small and overfits the few photographs "
    "that it was trained on**: what it draws are those photographs again, and nothing here says how a large model "
    "would do."
)
BASE_CURVES = "Training of the base model's parts; faint: single batches, strong: their running mean."
FINETUNE = (
    "Fine-tuning: running mean of the denoising loss, and the loss on validation images. The tick at the bottom is "
    "where the style's collection window opens."
)
PAPER = (
    "These are the paper's numbers: **FID of the full PixArt on other images, not comparable** with anything above. "
    "They show what size of difference the paper reports: condpdiff lies {gain} from original on average, where "
    "no LoRA lies {bare} from it."
)
PAPER_TABLE = "FID, lower is better, from Table 2 of arXiv 2408.01415."
SAME_CROPS = (
    "Images of one caption of a rendered style are one crop of one photograph, moved by less than a pixel: training, "
    "held-out and validation images differ by that alone, and the floor is as low for that reason."
)
SETTINGS = "The styles, from `configs/tasks/`; steps are those before the collection window opens."


def noun(evaluations: Sequence[StyleEvaluation]) -> str:
    """Photographs that a renderer has made over are no artist's style, and are not called so."""
    rendered = [e.task.data.source.type == "rendered" for e in evaluations]
    return "rendered styles" if all(rendered) else "styles"


def results(label: str, images: int) -> str:
    return (
        f"{label} to the style's validation images of each arm's selected candidate, **lower is better**, and in "
        "brackets how far that is above the floor: the mean over draws of real training images, "
        f"{images} a draw as for every candidate, or all where there are fewer. Candidates are selected by their "
        "denoising loss on held-out images. Bold: lowest of its column, the floor apart."
    )


def candidates(label: str) -> str:
    return (
        f"{label}, mean ± sample standard deviation over an arm's candidates (lowest in brackets). The floor's "
        "candidates are draws of real images."
    )


def gallery(e: StyleEvaluation) -> str:
    """What the images of a style's grid are."""
    rendered = e.task.data.source.type == "rendered"
    source = "photographs through a renderer" if rendered else "images of the style"
    arms = ", ".join(SHOWN[1:])
    return (
        f"{e.name} ({e.task.condition.description}): images of each arm's selected candidate ({arms}), the same noise "
        f"in a row. The first column shows real {source} of the same captions, which no LoRA was trained on."
        + f" {SAME_CROPS}"
        * rendered
    )


def racing(evaluations: Sequence[StyleEvaluation]) -> str:
    """Why some figures are not there, and what that saved."""
    done, full = (sum(counts[k] for e in evaluations for counts in e.passes.values()) for k in ("done", "full"))
    return (
        "Candidates were selected by racing (`eval.select`), which generates images with each arm's selected candidate "
        "alone: what needs the distances of all candidates (their mean, deviation and best, and with them whether a "
        f"difference is more than chance) is left out. {done:,} images went through the models in place of {full:,}."
    )


def rows_and_seeds(p: Params, evaluations: Sequence[StyleEvaluation]) -> str:
    """How many images and candidates stand behind the figures, and which seeds."""
    label, e = evaluations[0].metric, p.eval
    features = "features of Inception"
    if label.startswith("FD-Lite0"):
        features = (
            "EfficientNet-Lite0's pooled features of images brought to 32 pixels a side, or to 96 where the name says "
            "so (no FID, and not comparable with one)"
        )
    return (
        f"{label} is the Fréchet distance on {features}; lower is better, and on so few images a perfect generator "
        "would not reach 0 either: compare with the floor. "
        f"{e.images} images a candidate, {e.image_steps} denoising steps each, guidance {e.image_guidance:g}; at most "
        f"{p.data.max_validation} validation images. Candidates are selected on {e.select_rows} held-out images. "
        f"{p.sample.count} samples a style from noise, {p.normalize.n_checkpoints} checkpoints a style, LoRA rank "
        f"{p.collect.rank}. One run; seeds: data {p.data.seed}, collect {p.collect.seed}, autoencoder {p.ae.seed}, "
        f"diffusion {p.ldm.seed}, sample {p.sample.seed}, eval {e.seed}, report {p.report.seed}."
    )
