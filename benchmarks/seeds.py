"""The generator over several seeds, against the arms: `python -m benchmarks.seeds [SEED...] [--row ROW]`.

Trains autoencoder and diffusion model again with each seed, draws `sample.count` samples a task, scores and selects
them as merge-eval does, and compares them with the arms of a finished `dvc repro` on the same rows; that run's own seed
is read from it. With a row of benchmarks/ablation.yaml, its keys are changed. Intervals are of a paired bootstrap over
seeds and validation rows together. docs/ablation.md shows a run.
"""

import argparse
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.ablation import DATA, ROWS, Bench, read_rows_of, with_changes
from condpdiff.common.errors import run
from condpdiff.evaluate import controls
from condpdiff.report.compare import METRICS, signed
from condpdiff.report.tables import CONTROLS, Evaluation, candidates, read_evaluation, selected

RESAMPLES = 2000
ARMS = ("original", *CONTROLS)


Found = dict[str, tuple[np.ndarray, int, float]]
"""Of each task: validation predictions [S, V] of a seed's samples, which is selected, their spread over the zoo's."""


def committed(evaluations: list[Evaluation]) -> Found:
    """The samples that the finished run has scored."""
    found = {}
    for e in evaluations:
        rows = candidates(e.scores, "condpdiff")
        picked = int(np.flatnonzero(rows == selected(e.scores, "condpdiff"))[0])
        found[e.name] = (e.predictions[rows], picked, e.spread["condpdiff"] / e.spread["checkpoint"])
    return found


def generated(bench: Bench, changes: dict[str, Any], seed: int) -> Found:
    """Train, sample and score with one seed."""
    params = with_changes(changes, seed)
    generator = bench.ldm(params.ae, params.condition, params.ldm)
    y, found = bench.conditions(params.condition), {}
    for q, name in enumerate(bench.w):
        random, scorer = torch.Generator().manual_seed(seed * 1000 + q), bench.scorer(name)
        z, _ = generator.latents(y[name], params.sample.performance, params.sample.count, params.sample, random, name)
        theta = generator.to_theta(z, bench.frames[name])
        select, validation = [], []
        for vector in tqdm(theta, desc=f"seed {seed} {name}", unit="candidate", leave=False):
            scorer.merge(vector)
            select.append(scorer.score("select", scorer.predict("select"))[scorer.task.metrics[0]])
            validation.append(scorer.predict("validation"))
        spread = controls.spread(theta) / controls.spread(bench.zoos[name].theta)
        found[name] = (np.stack(validation), int(np.argmax(select)), spread)
    return found


def resampled(e: Evaluation, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Score of each candidate on each resample: [candidates, 1 + B]."""
    return np.stack([METRICS[e.metric](p, e.labels, counts) for p in predictions])


def interval(ours: np.ndarray, theirs: np.ndarray, drawn: np.ndarray) -> str:
    """Difference with its 95 % interval; ours [seeds, 1 + B], theirs [1 + B], `drawn` [B, seeds] resampled seeds."""
    point = ours[:, 0].mean() - theirs[0]
    spread = ours[drawn.T, np.arange(1, ours.shape[1])].mean(0) - theirs[1:]  # [B]
    low, high = np.percentile(spread, [2.5, 97.5])
    return f"{signed(point)} [{signed(low)}, {signed(high)}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", type=int, nargs="*", default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--row", help="of benchmarks/ablation.yaml")
    arguments = parser.parse_args()
    seeds, bench = arguments.seeds, Bench(samples=0)
    evaluations = [read_evaluation(DATA / "eval", name, task) for name, task in bench.tasks.items()]
    changes = read_rows_of(ROWS, [arguments.row])[arguments.row] if arguments.row else {}
    found = [
        committed(evaluations) if with_changes(changes, seed) == bench.params else generated(bench, changes, seed)
        for seed in seeds
    ]
    drawn = np.random.default_rng(0).integers(len(seeds), size=(RESAMPLES, len(seeds)))

    means, chosen = [], []  # a task: ours [seeds, 1 + B]
    arm_means, arm_chosen = [], []  # a task: arm -> [1 + B]
    each = f"{bench.params.sample.count} samples a task and seed"
    print(f"{arguments.row or 'params.yaml'}; seeds {', '.join(map(str, seeds))}; {each}\n")
    print(
        "| task | mean of samples, by seed | mean of originals | difference | spread / zoo's |\n|---|---|--:|--:|--:|"
    )
    for i, e in enumerate(evaluations):
        v = len(e.labels)
        counts = np.random.default_rng([1, i]).multinomial(v, np.full(v, 1 / v), size=RESAMPLES)
        counts = np.concatenate([np.ones((1, v)), counts])
        scores = [resampled(e, f[e.name][0], counts) for f in found]
        means.append(np.stack([s.mean(0) for s in scores]))
        chosen.append(np.stack([s[f[e.name][1]] for s, f in zip(scores, found, strict=True)]))
        rows = {arm: e.predictions[candidates(e.scores, arm)] for arm in ARMS}
        arm_means.append({arm: resampled(e, p, counts).mean(0) for arm, p in rows.items()})
        picked = {arm: e.predictions[[selected(e.scores, arm)]] for arm in ARMS}
        arm_chosen.append({arm: resampled(e, p, counts)[0] for arm, p in picked.items()})
        by_seed = ", ".join(f"{m[0]:.2f}" for m in means[-1])
        spread = np.mean([f[e.name][2] for f in found])
        theirs = arm_means[-1]["original"]
        print(f"| {e.name} | {by_seed} | {theirs[0]:.2f} | {interval(means[-1], theirs, drawn)} | {spread:.2f} |")
    ours, theirs = np.mean(means, axis=0), np.mean([a["original"] for a in arm_means], axis=0)
    by_seed = ", ".join(f"{m[0]:.2f}" for m in ours)
    print(f"| mean of tasks | {by_seed} | {theirs[0]:.2f} | {interval(ours, theirs, drawn)} | |\n")

    print("| arm | selected candidate, mean of tasks | condpdiff minus it |\n|---|--:|--:|")
    ours = np.mean(chosen, axis=0)
    print(f"| condpdiff | {', '.join(f'{m[0]:.2f}' for m in ours)} | |")
    for arm in ARMS:
        theirs = np.mean([a[arm] for a in arm_chosen], axis=0)
        print(f"| {arm} | {theirs[0]:.2f} | {interval(ours, theirs, drawn)} |")


if __name__ == "__main__":
    run(main)
