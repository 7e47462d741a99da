"""What each key of the generator is worth: `python -m benchmarks.ablation [ROW...] [--samples S] [--seeds SEED...]`.

Trains what a row's keys change, and no more, on the zoo, statistics and held-out losses of a finished `dvc repro`;
rows stand in benchmarks/ablation.yaml. Prints a Markdown table as rows end. docs/ablation.md shows a run.
"""

import argparse
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from timeit import default_timer
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.delta_w import UpdateLoss
from condpdiff.autoencoder.latents import Scale
from condpdiff.autoencoder.models import Autoencoder, encode_all
from condpdiff.autoencoder.train import reconstruction_error, train
from condpdiff.common.axes import evenly_spaced
from condpdiff.common.errors import UserError, nearest, run
from condpdiff.common.matrices import Joined
from condpdiff.common.settings import PARAMS, parse, read_yaml
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.conditions import conditions
from condpdiff.evaluate import controls
from condpdiff.experiments.params import Params, load_params
from condpdiff.generate.generator import Generator
from condpdiff.text.conditions import inputs
from condpdiff.text.encoder import load_encoder
from condpdiff.text.rows import read_rows
from condpdiff.text.score import Scorer
from condpdiff.zoo import normalized
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.layout import Layout
from condpdiff.zoo.performance import load_performance, select_rows

ROWS = Path("benchmarks/ablation.yaml")
DATA = Path("data")
HEAD = (
    "row", "AE error", "held-out loss / soup's", "validation mean", "minus originals", "tasks above", "minus soup",
    "spread / zoo's", "s",
)  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """What some vectors of one task score."""

    loss: float
    """Mean loss on the select rows, which neither fine-tuning nor the performance saw."""
    validation: float
    """Mean of the task's first metric, percent."""
    spread: float
    """Root mean square distance to their own mean."""


def with_changes(changes: dict[str, Any], seed: int) -> Params:
    """params.yaml with some dotted keys changed, and every seed of the generator."""
    values = read_yaml(PARAMS)
    for key, value in {**changes, "ae.seed": seed, "ldm.seed": seed, "sample.seed": seed}.items():
        section, name = key.split(".")
        values[section][name] = value
    return parse(Params, values, str(ROWS))


class Bench:
    """The committed run's inputs, and what rows share: a network is trained once for each setting of its section."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.params, self.tasks = load_params()
        names, n = self.params.tasks, self.params.normalize.n_checkpoints
        self.w = normalized.load_rows(DATA / "normalized", names)
        self.layout = Layout.load(DATA / "normalized")
        self.frames = {name: normalized.load_frame(DATA / "normalized", name) for name in names}
        self.zoos = {name: load_zoo(DATA / "zoo" / name, n) for name in names}
        # Sections of params.yaml are frozen and compare by value: they are the keys of what was trained with them.
        self.autoencoder = cache(self._autoencoder)
        self.conditions = cache(self._conditions)
        self.ldm = cache(self._ldm)

    def _autoencoder(self, ae: Any) -> tuple[Autoencoder, float, dict[str, Tensor], Scale]:
        rows = Joined(list(self.w.values()))
        if ae == self.params.ae:
            model = autoencoder.load(DATA / "autoencoder" / autoencoder.FILE)
        else:
            statistics = [frame.statistics for frame in self.frames.values()]
            counts = [w.shape[0] for w in self.w.values()]
            updates = UpdateLoss(self.layout, statistics, counts, ae.delta_w) if ae.delta_w else None
            model, _, _ = train(rows, ae, self.layout, updates)
        z = {name: encode_all(model, w) for name, w in self.w.items()}
        scale = Scale.of(torch.cat(list(z.values())))
        return model, reconstruction_error(model, rows), {name: scale.apply(rows) for name, rows in z.items()}, scale

    def _conditions(self, condition: Any) -> dict[str, Tensor]:
        return conditions(condition, {q: inputs(DATA / "tasks" / q, condition.kind) for q in self.w}, load_encoder)

    def _ldm(self, ae: Any, condition: Any, ldm: Any) -> Generator:
        model, _, z, scale = self.autoencoder(ae)
        if (ae, condition, ldm) == (self.params.ae, self.params.condition, self.params.ldm):
            denoiser, process = diffusion.load(DATA / "ldm" / diffusion.FILE)
            return Generator(denoiser, process, model, scale)
        p = load_performance(DATA / "performance", {q: len(rows) for q, rows in z.items()}, ldm.performance)
        denoiser, _ = diffusion.train(z, self.conditions(condition), p, ldm, condition.kind == "learnable")
        return Generator(denoiser, diffusion.Process(ldm.prediction, ldm.schedule), model, scale)

    @cache  # noqa: B019  one Bench lives as long as the program
    def scorer(self, name: str) -> Scorer:
        held = read_rows(DATA / "tasks" / name, "held_out")
        rows = {"select": select_rows(held, self.params.performance, self.params.eval.select_rows)}
        rows["validation"] = read_rows(DATA / "tasks" / name, "validation")
        return Scorer(DATA / "base", self.zoos[name], self.tasks[name], rows, self.params.eval.batch_tokens)

    def score(self, name: str, vectors: Tensor) -> Scores:
        scorer, losses, validation = self.scorer(name), [], []
        for theta in vectors:
            scorer.merge(theta)
            losses.append(scorer.losses("select").mean())
            validation.append(scorer.score("validation", scorer.predict("validation"))[scorer.task.metrics[0]])
        return Scores(float(np.mean(losses)), float(np.mean(validation)), controls.spread(vectors))

    def generated(self, params: Params) -> tuple[float, dict[str, Scores]]:
        """Reconstruction error, and scores of samples of every task."""
        generator = self.ldm(params.ae, params.condition, params.ldm)
        y, found = self.conditions(params.condition), {}
        for q, name in enumerate(self.w):
            random = torch.Generator().manual_seed(params.sample.seed * 1000 + q)
            z, _ = generator.latents(y[name], params.sample.performance, self.samples, params.sample, random, name)
            found[name] = self.score(name, generator.to_theta(z, self.frames[name]))
        return self.autoencoder(params.ae)[1], found


def line(name: str, error: float, found: list[dict[str, Scores]], references: dict[str, dict[str, Scores]]) -> str:
    """One row of the table: means over seeds and tasks, and the standard deviation over seeds where there are some."""
    zoo, soup = references["original"], references["soup"]
    tasks = list(zoo)

    def over(value: Any) -> np.ndarray:
        return np.array([np.mean([value(scores[q], q) for q in tasks]) for scores in found])  # [seeds]

    def text(values: np.ndarray, form: str) -> str:
        return f"{values.mean():{form}}" + (f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else "")

    above = np.mean([sum(scores[q].validation > zoo[q].validation for q in tasks) for scores in found])
    cells = [
        name, "" if np.isnan(error) else f"{error:.4f}",
        text(over(lambda s, q: s.loss / soup[q].loss), ".3f"), text(over(lambda s, q: s.validation), ".2f"),
        text(over(lambda s, q: s.validation - zoo[q].validation), "+.2f"), f"{above:g} of {len(tasks)}",
        text(over(lambda s, q: s.validation - soup[q].validation), "+.2f"),
        text(over(lambda s, q: s.spread / zoo[q].spread), ".2f"),
    ]  # fmt: skip
    return "| " + " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="all by default")
    parser.add_argument("--samples", type=int, default=8, help="a task")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of autoencoder, diffusion and sampling")
    arguments = parser.parse_args()
    rows = read_rows_of(ROWS, arguments.rows)
    bench = Bench(arguments.samples)
    picked = {name: evenly_spaced(len(zoo.theta), 20) for name, zoo in bench.zoos.items()}
    references = {
        "original": {q: bench.score(q, zoo.theta[picked[q]]) for q, zoo in bench.zoos.items()},
        "soup": {q: bench.score(q, controls.soup(zoo.theta)) for q, zoo in bench.zoos.items()},
    }
    print("| " + " | ".join(HEAD) + " |\n|---" + "|--:" * (len(HEAD) - 1) + "|", flush=True)
    for name, scores in references.items():
        print(line(name, float("nan"), [scores], references) + " | |", flush=True)
    for name, changes in rows.items():
        began = default_timer()
        runs = [bench.generated(with_changes(changes, seed)) for seed in arguments.seeds]
        text = line(name, float(np.mean([e for e, _ in runs])), [scores for _, scores in runs], references)
        print(f"{text} | {(default_timer() - began) / len(runs):.0f} |", flush=True)


def read_rows_of(path: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """The rows asked for, all by default.

    Raises:
        UserError: there is no such row.
    """
    known = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name in names:
        if name not in known:
            raise UserError(f"{path}: no row {name!r}{nearest(name, known)}; allowed: {', '.join(known)}")
    return {name: known[name] for name in names or known}


if __name__ == "__main__":
    run(main)
