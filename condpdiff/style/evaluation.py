"""Score every arm's candidates by one rule: the denoising loss selects, the Fréchet distance of its images tells.

Selection is on held-out images and higher is better (`select`: minus the loss); the figure that counts is the distance
to the validation images, and lower is better. Generating is nearly the whole cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from condpdiff.common.errors import UserError
from condpdiff.common.files import write_json, write_tensors
from condpdiff.evaluate import controls
from condpdiff.evaluate.arms import Arm, distance_to_zoo, first_best
from condpdiff.evaluate.racing import parts, race
from condpdiff.evaluate.settings import Eval
from condpdiff.style.metrics import features, frechet_distance, load_features, statistics
from condpdiff.style.rows import images, read_rows, save_png
from condpdiff.style.score import Scorer
from condpdiff.style.task import Task
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.performance import loss_rows, select_rows
from condpdiff.zoo.settings import Performance

Splits = dict[str, pd.DataFrame]
DOSES = ["arm", "asked", "candidate", "loss", "validation"]
SHOWN = 6
"""Images of an arm that are kept to be looked at."""
FLOOR_DRAWS = 3


def evaluate(
    task: Task,
    zoo: Zoo,
    arms: dict[str, Arm],
    samples: dict[str, Tensor],
    settings: Eval,
    performance: Performance,
    data: Path,
    base: Path,
    out: Path,
) -> pd.DataFrame:
    """Score everything and write tables, distances and images to the folder `out`.

    scores.csv, doses.csv and passes.json as in every domain; images.csv and `images/<arm>/<number>.png`, each with its
    prompt and seed inside; trajectories.csv and trajectories.safetensors.

    Args:
        samples: what `generate` made for the task.
        data: the task's prepared rows.

    Returns:
        The scores, one row a candidate.

    Raises:
        UserError: fewer than two validation images; a file can't be read.
    """
    train, held_out, validation = (read_rows(data, name) for name in ("train", "held_out", "validation"))
    if len(validation) < 2:
        found = f"{data / 'validation.parquet'}: found {len(validation)} images"
        raise UserError(f"{found}, allowed: at least 2, for a Fréchet distance")
    judge = Judge(base, task, images(validation))
    scorer = Scorer(base, zoo, task, splits(held_out, performance, settings), settings.batch_tokens)
    prompts = Prompts.of(validation, settings.images)
    scores, shown = score_arms(scorer, judge, arms, zoo.theta, floor_draws(train, settings), prompts, settings)
    doses = score_doses(scorer, zoo.theta, samples["doses"], samples["asked"])
    scores.to_csv(out / "scores.csv", index=False)
    doses.to_csv(out / "doses.csv", index=False)
    write_json(out / "passes.json", count_passes(scorer, scores, doses, settings))
    write_images(out, prompts, shown, validation)
    write_trajectories(out, zoo.theta, samples["trajectories"])
    return scores


class Judge:
    """Fréchet distances of images to the style's validation images, whose features are taken once."""

    def __init__(self, base: Path, task: Task, real: np.ndarray) -> None:
        self.networks = {str(metric): load_features(base, metric) for metric in task.metrics}
        self.real = {k: statistics(features(network, real), "validation") for k, network in self.networks.items()}

    def distances(self, found: np.ndarray) -> dict[str, float]:
        """The task's metrics of images [n, H, W, 3] uint8, the first one the one that counts."""
        return {
            metric: frechet_distance(
                statistics(features(network, found), "params.yaml: eval.images"), self.real[metric]
            )
            for metric, network in self.networks.items()
        }


@dataclass(frozen=True)
class Prompts:
    """What every candidate of every arm generates."""

    captions: list[str]
    seeds: list[int]

    @staticmethod
    def of(validation: pd.DataFrame, count: int) -> "Prompts":
        """The captions of the validation images in their order, again and again; every image has a seed of its own."""
        captions = validation["caption"].tolist()
        return Prompts([captions[i % len(captions)] for i in range(count)], list(range(count)))

    def spread(self, count: int) -> list[int]:
        """Positions of `count` prompts to be looked at: spread over the different captions, then the others."""
        again = pd.Series(self.captions).duplicated().to_numpy()
        first, others = np.flatnonzero(~again), np.flatnonzero(again)
        chosen = first[np.linspace(0, len(first) - 1, min(count, len(first))).round().astype(int)]
        return [*chosen.tolist(), *others[: count - len(chosen)].tolist()]

    def at(self, positions: Sequence[int]) -> "Prompts":
        """Those at the positions."""
        return Prompts([self.captions[i] for i in positions], [self.seeds[i] for i in positions])


@dataclass(frozen=True)
class Candidate:
    """What was found of one candidate."""

    rows: int
    """Select rows seen; fewer than all if it dropped out of the race."""
    select: float
    """Minus the mean loss on the select rows; NaN if it dropped out, or its loss is no number."""
    validation: dict[str, float]
    """Its distances; empty: it did not win the race, and nothing was generated."""
    shown: np.ndarray | None
    """[SHOWN, H, W, 3] uint8: its images of `Prompts.spread`."""


class Racer:
    """A style's scorer as `race` takes one: what it puts out for an image is the loss."""

    def __init__(self, scorer: Scorer) -> None:
        self.merge, self.outputs, self.batches = scorer.merge, scorer.losses, scorer.examples
        self.labels: dict[str, None] = dict.fromkeys(scorer.examples)

    def losses_of(self, outputs: np.ndarray, labels: None) -> np.ndarray:
        return outputs

    def predictions_of(self, outputs: np.ndarray) -> np.ndarray:
        return outputs


def splits(held_out: pd.DataFrame, performance: Performance, settings: Eval) -> Splits:
    """The images that losses are taken on: `select`, `loss` (doses), and for racing parts of select.

    Args:
        held_out: a style's held-out rows, in random order.
    """
    select, loss = select_rows(held_out, performance, settings.select_rows), loss_rows(held_out, performance)
    return {"select": select, "loss": loss, **(parts("select", select) if settings.select == "racing" else {})}


def floor_draws(train: pd.DataFrame, settings: Eval) -> list[np.ndarray]:
    """Disjoint draws of real training images, `FLOOR_DRAWS` of them or as many as there are images for.

    Each has as many images as a candidate generates: their distances are what a perfect generator would get. Where
    there are fewer training images than that, all of them are one draw.
    """
    order = np.random.default_rng(settings.seed).permutation(len(train))
    draws = max(1, min(FLOOR_DRAWS, len(train) // settings.images))
    chosen = order[: draws * settings.images]
    return [images(train.iloc[rows]) for rows in np.split(chosen, draws)]


def score_arms(
    scorer: Scorer,
    judge: Judge,
    arms: dict[str, Arm],
    theta: Tensor,
    floor: list[np.ndarray],
    prompts: Prompts,
    settings: Eval,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Score real images, no LoRA, and every candidate of every arm.

    Args:
        theta: the zoo [N, K].
        floor: draws of real images, each [n, H, W, 3].

    Returns:
        One row a candidate: arm, candidate, checkpoint, rows (select rows seen), select (minus the mean denoising
        loss), validation (the task's first metric; lower is better), validation_<metric> for each metric, and distance
        (L2 to the nearest checkpoint, to the nearest other one for checkpoints themselves). NaN is the select score of
        real images and of who dropped out of a race, and all of validation for who did not win it. And of each arm the
        first images of its selected candidate.
    """
    rows: list[dict[str, object]] = []
    shown: dict[str, np.ndarray] = {}
    nan = float("nan")

    def add(arm: str, candidate: int, checkpoint: int | None, found: Candidate, distance: float) -> None:
        row: dict[str, object] = {"arm": arm, "candidate": candidate, "checkpoint": checkpoint}
        row |= {"rows": found.rows, "select": found.select}
        distances = {metric: found.validation.get(metric, nan) for metric in judge.networks}
        row |= {"validation": next(iter(distances.values()))} | {f"validation_{k}": v for k, v in distances.items()}
        rows.append(row | {"distance": distance})

    for i, real in enumerate(floor):
        add("floor", i, None, Candidate(0, nan, judge.distances(real), None), nan)
    scorer.merge(None)
    bare = _generated(_selected_on_all(scorer), scorer, judge, prompts, settings, "no_lora")
    add("no_lora", 0, None, bare, nan)
    shown["no_lora"] = _images_of(bare)
    for name, arm in arms.items():
        candidates = run_arm(scorer, judge, name, arm.vectors, prompts, settings)
        for i, (candidate, checkpoint) in enumerate(zip(candidates, arm.checkpoints, strict=True)):
            itself = checkpoint if name == "original" else None
            add(name, i, checkpoint, candidate, distance_to_zoo(arm.vectors[i], theta, itself))
        shown[name] = _images_of(candidates[_best(candidates)])
    return pd.DataFrame(rows).astype({"checkpoint": "Int64"}), shown


def run_arm(
    scorer: Scorer, judge: Judge, name: str, vectors: Tensor, prompts: Prompts, settings: Eval
) -> list[Candidate]:
    """Every candidate on all select rows and all prompts, or a race whose winner alone generates images."""
    if settings.select == "full":
        found = []
        for i, theta in enumerate(tqdm(vectors, desc=name, unit="candidate", leave=False)):
            scorer.merge(theta)
            what = f"{name} {i}"
            found.append(_generated(_selected_on_all(scorer), scorer, judge, prompts, settings, what))
        return found
    runners = race(Racer(scorer), vectors, "select", settings.race_z, name)  # type: ignore[arg-type]  # not text's
    all_rows = len(scorer.examples["select"])
    means = [_minus_mean(r.predictions) if r.rows == all_rows else float("nan") for r in runners]
    candidates = [Candidate(r.rows, mean, {}, None) for r, mean in zip(runners, means, strict=True)]
    best = _best(candidates)
    scorer.merge(vectors[best])
    candidates[best] = _generated(candidates[best], scorer, judge, prompts, settings, name)
    return candidates


def _selected_on_all(scorer: Scorer) -> Candidate:
    losses = scorer.losses("select")
    return Candidate(len(losses), _minus_mean(losses), {}, None)


def _minus_mean(losses: np.ndarray) -> float:
    mean = float(losses.mean())
    return -mean if np.isfinite(mean) else float("nan")


def _generated(
    found: Candidate, scorer: Scorer, judge: Judge, prompts: Prompts, settings: Eval, what: str
) -> Candidate:
    """The candidate with the distances of what the transformer, as it is merged now, makes of the prompts."""
    made = scorer.generate(
        prompts.captions, prompts.seeds, settings.image_steps, settings.image_guidance, f"{what}, images"
    )
    # A transformer whose loss is no number makes black images, whose distance would pass for one.
    distances = judge.distances(made) if np.isfinite(found.select) else dict.fromkeys(judge.networks, float("nan"))
    return replace(found, validation=distances, shown=made[prompts.spread(SHOWN)])


def _best(candidates: list[Candidate]) -> int:
    return first_best(np.array([c.select for c in candidates]))


def _images_of(candidate: Candidate) -> np.ndarray:
    assert candidate.shown is not None  # the selected one's
    return candidate.shown


def score_doses(scorer: Scorer, theta: Tensor, doses: Tensor, asked: Tensor) -> pd.DataFrame:
    """The dose-response curve: what asking for a performance brings, by the loss; nothing is generated for it.

    Args:
        theta: the zoo [N, K].
        doses: [D, n, K], n LoRAs sampled at each of the performances `asked` [D].

    Returns:
        The soup (asked: NaN), then each dose's candidates: arm, asked, candidate, loss (mean over the rows of split
        `loss`), validation (NaN). No row if there are no doses.
    """
    at = [(round(float(p), 6), i) for p in asked for i in range(doses.shape[1])]  # float32 0.1 is no 0.1
    if not at:
        return pd.DataFrame(columns=DOSES)
    names = [("soup", float("nan"), 0), *(("condpdiff", *pair) for pair in at)]
    rows = []
    for name, vector in zip(names, tqdm([controls.soup(theta)[0], *doses.flatten(0, 1)], desc="doses"), strict=True):
        scorer.merge(vector)
        rows.append((*name, float(scorer.losses("loss").mean()), float("nan")))
    return pd.DataFrame(rows, columns=DOSES)


def count_passes(scorer: Scorer, scores: pd.DataFrame, doses: pd.DataFrame, settings: Eval) -> dict[str, Any]:
    """Images noised and denoised once (select, loss) or generated (validation), and how many `full` would have been."""
    done: dict[str, int] = dict.fromkeys(("select", "validation", "loss"), 0)
    for name, count in scorer.passes.items():
        done["validation" if name == "images" else name.partition(" ")[0]] += count  # parts are `select 0:12`
    models = int((scores["arm"] != "floor").sum())
    full = {"select": models * len(scorer.examples["select"]), "validation": models * settings.images}
    full["loss"] = len(doses) * len(scorer.examples["loss"])
    return {"select": settings.select, "rows": {k: {"done": done[k], "full": full[k]} for k in done}}


def write_images(folder: Path, prompts: Prompts, shown: dict[str, np.ndarray], validation: pd.DataFrame) -> None:
    """Write each arm's images beside real ones of the same captions, and `images.csv`: arm, file, prompt, seed."""
    kept = prompts.spread(SHOWN)
    prompts, real = prompts.at(kept), images(validation.iloc[[i % len(validation) for i in kept]])
    rows = []
    for arm, pixels in {"real": real, **shown}.items():
        (folder / "images" / arm).mkdir(parents=True)
        for i, image in enumerate(pixels):
            file = f"images/{arm}/{i}.png"
            seed = None if arm == "real" else prompts.seeds[i]
            save_png(folder / file, image, prompt=prompts.captions[i], **({} if seed is None else {"seed": seed}))
            rows.append((arm, file, prompts.captions[i], seed))
    table = pd.DataFrame(rows, columns=["arm", "file", "prompt", "seed"]).astype({"seed": "Int64"})
    table.to_csv(folder / "images.csv", index=False)


def write_trajectories(folder: Path, theta: Tensor, trajectories: Tensor) -> None:
    """Write where noises go on their way to LoRAs: trajectories.csv [M] and the distances [M, M] between its points.

    Args:
        theta: the zoo [N, K].
        trajectories: [T, points, K] decoded latents of T noises, the noise first.
    """
    count, points = trajectories.shape[:2]
    rows: list[tuple[str, int, int | None]] = [("checkpoint", i, None) for i in range(len(theta))]
    rows += [("soup", 0, None), *(("condpdiff", i, point) for i in range(count) for point in range(points))]
    table = pd.DataFrame(rows, columns=["arm", "candidate", "point"]).astype({"point": "Int64"})
    table.to_csv(folder / "trajectories.csv", index=False)
    vectors = torch.cat([theta, controls.soup(theta), trajectories.flatten(0, 1)])  # [M, K]
    write_tensors(folder / "trajectories.safetensors", {"distances": controls.distances(vectors)})
