"""What the condition does to styles: images of noise, and the distance of a LoRA's images to one style."""

from pathlib import Path

import numpy as np
from torch import Tensor

from condpdiff.evaluate.interpolation import Score, Scoring
from condpdiff.style.between import PROBE
from condpdiff.style.evaluation import Judge, Prompts
from condpdiff.style.rows import images, read_rows
from condpdiff.style.score import Scorer
from condpdiff.style.task import Task
from condpdiff.zoo.checkpoints import load_zoo

DRAWS = 3


def nonsense_inputs(task: Task, kind: str) -> list[np.ndarray]:
    """Draws of images of noise, uint8 [images, H, W, 3] each; none for kinds that read no image.

    Args:
        task: any of the run's; as many images a draw as it has, of its size.
    """
    if kind != "style_images":
        return []
    shape = (task.condition.images, task.data.size, task.data.size, 3)
    rng = np.random.default_rng(task.condition.seed)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(DRAWS)]


def load_score(name: str, task: Task, settings: Scoring, data: Path, zoos: Path, base: Path) -> Score:
    """The style's first metric of `eval.images` generated images; lower is better; NaN: the loss is no number.

    Args:
        data: folder of the prepared styles.
        zoos: folder of the styles' zoos.
    """
    validation = read_rows(data / name, "validation")
    judge, prompts = Judge(base, task, images(validation)), Prompts.of(validation, settings.images)
    scorer = Scorer(base, load_zoo(zoos / name, 1), task, {"probe": validation[:PROBE]}, settings.batch_tokens)

    def score(theta: Tensor | None) -> float:
        scorer.merge(theta)
        if not np.isfinite(scorer.losses("probe")).all():  # its images would be black, and their distance pass for one
            return float("nan")
        made = scorer.generate(prompts.captions, prompts.seeds, settings.image_steps, settings.image_guidance)
        return next(iter(judge.distances(made).values()))

    return score
