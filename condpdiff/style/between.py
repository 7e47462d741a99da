"""Between two styles: conditions that training never drew, distances to both styles, and the images themselves."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from condpdiff.evaluate.interpolation import SCORES, Point, Scoring
from condpdiff.style.evaluation import Judge, Prompts
from condpdiff.style.rows import images, read_rows, save_png
from condpdiff.style.score import Scorer
from condpdiff.style.task import Task
from condpdiff.zoo.checkpoints import load_zoo

STRIP = 4
"""Prompts whose images are kept along lambda."""
PROBE = 8
"""Images whose loss tells whether a LoRA works at all."""


def unseen_inputs(task: Task, folder: Path, kind: str) -> dict[str, list[np.ndarray]]:
    """`unseen_images`: draws of held-out images, uint8 [images, H, W, 3] each, as many as of training images.

    No LoRA was trained on them, and no distance is taken to them. Nothing for kinds that read no image. A draw has all
    of them where there are fewer than it asks for.

    Args:
        folder: the style's prepared images.
    """
    if kind != "style_images":
        return {}
    condition, pixels = task.condition, images(read_rows(folder, "held_out"))
    rng = np.random.default_rng(condition.seed)
    drawn = [pixels[np.sort(rng.permutation(len(pixels))[: condition.images])] for _ in range(condition.draws)]
    return {"unseen_images": drawn}


def score_between(
    points: Sequence[Point], tasks: dict[str, Task], settings: Scoring, data: Path, zoos: Path, base: Path, out: Path
) -> pd.DataFrame:
    """Generate images with every LoRA once, and measure their distance to the validation images of both styles.

    Writes images.csv and `images/<kind>/<point>-<seed>.png` to `out`: a few prompts' images of each point's first LoRA,
    each with its prompt and seed inside.

    Args:
        data: folder of the prepared styles.
        zoos: folder of the styles' zoos.

    Returns:
        kind, lambda, sample, task, score (the style's first metric; lower is better; NaN: the loss is no number).
    """
    validation = {name: read_rows(data / name, "validation") for name in tasks}
    judges = {name: Judge(base, task, images(validation[name])) for name, task in tasks.items()}
    first, task = next(iter(tasks.items()))  # all zoos of a run have one layout, rank and alpha
    probe = {"probe": validation[first][:PROBE]}
    scorer = Scorer(base, load_zoo(zoos / first, 1), task, probe, settings.batch_tokens)
    prompts = both_prompts(list(validation.values()), settings.images)
    kept = prompts.spread(STRIP)
    rows, shown = [], []
    for point in tqdm(points, desc=" to ".join(tasks), unit="point"):
        for sample, theta in enumerate(point.theta):
            scorer.merge(theta)
            made = scorer.generate(prompts.captions, prompts.seeds, settings.image_steps, settings.image_guidance)
            works = bool(np.isfinite(scorer.losses("probe")).all())
            for name, judge in judges.items():
                # A transformer whose loss is no number makes black images, whose distance would pass for one.
                score = next(iter(judge.distances(made).values())) if works else float("nan")
                rows.append((point.kind, point.at, sample, name, score))
            if sample == 0:
                shown.append((point, made[kept]))
    _write_strips(out, prompts.at(kept), shown)
    return pd.DataFrame(rows, columns=SCORES)


def both_prompts(validation: Sequence[pd.DataFrame], count: int) -> Prompts:
    """Captions of the styles' validation images in turn, so that what is generated favours neither."""
    longest = max(map(len, validation))
    captions = [str(rows["caption"].iloc[i % len(rows)]) for i in range(longest) for rows in validation]
    return Prompts.of(pd.DataFrame({"caption": captions}), count)


def _write_strips(folder: Path, prompts: Prompts, shown: list[tuple[Point, np.ndarray]]) -> None:
    """images.csv (kind, lambda, file, prompt, seed) and its files, an image of each prompt a point."""
    rows = []
    for kind, strip in groupby(shown, key=lambda each: each[0].kind):
        (folder / "images" / kind).mkdir(parents=True)
        for number, (point, pixels) in enumerate(strip):
            for image, prompt, seed in zip(pixels, prompts.captions, prompts.seeds, strict=True):
                file = f"images/{kind}/{number}-{seed}.png"
                save_png(folder / file, image, prompt=prompt, seed=seed)
                rows.append((kind, point.at, file, prompt, seed))
    pd.DataFrame(rows, columns=["kind", "lambda", "file", "prompt", "seed"]).to_csv(folder / "images.csv", index=False)
