"""merge-eval of a family of styles: the images that every arm's LoRAs make, and their distances."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from condpdiff.diffusion.conditions import projected
from condpdiff.evaluate.family import FamilyEvaluation, Run
from condpdiff.style.conditions import pictures_of
from condpdiff.style.encoder import load_encoder
from condpdiff.style.families import drawing
from condpdiff.style.families.losses import Family
from condpdiff.style.images import save_png
from condpdiff.style.photographs import captions
from condpdiff.style.task import DrawnSource, Task
from condpdiff.style.unseen.score import Judge, Painter, confusion

PICTURES = (1, 4, 10)  # pictures of a condition, beside the number that its file asks for
SHOWN = 4  # captions whose images are kept, of the scored ones
POINTS, BETWEEN = 5, "between"
"""Conditions on the line between the first two members' that are generated for, and what their images are called."""
GRID = ("no_lora", "mean_soup", "nearest", "ridge", "condpdiff", "own")  # arms whose images are kept


class Evaluation(FamilyEvaluation):
    """Of each arm's images the distances to the true ones; of condpdiff's `to_condition`, of their features to y."""

    best = ("to_condition", False)

    def __init__(self, name: str, task: Task, data: Path, run: Run) -> None:
        base, self.scored = data / "base", list(drawing.SCORED)
        self.encode = projected(load_encoder(run.condition), run.condition, data)
        self.aligned = isinstance(task.data.source, DrawnSource)
        self.judge = Judge(base, self.scored, self.aligned, task.metrics)
        family = Family(task, run.collect, data / "tasks" / name, base)
        self.paint = Painter(base, family.layout, run.collect.alpha / run.collect.rank, captions(), run.eval)
        self.choices: list[tuple[str, int, int, float]] = []
        self.images: dict[str, np.ndarray] = {}
        super().__init__(name, task, data, run, family)

    def turn_to(self, names: Sequence[str], tiers: Sequence[str]) -> None:
        """With their true images, and the pictures that tell of them."""
        super().turn_to(names, tiers)
        folder = self.data / "tasks" / self.name
        self.true = [pictures_of(folder, q, "train") for q in self.numbers]
        self.told = [pictures_of(folder, q) for q in self.numbers]
        self.judge.turn_to(self.true)

    def scores(self, arm: str, theta: Tensor, sample: int) -> list[dict[str, float]]:
        """Of the images that the LoRAs make; those of the first sample are kept."""
        made = self.paint(theta)
        if sample == 0:
            self.images[arm] = made
        found = [self.judge.distances(images, i) for i, images in enumerate(made)]
        if arm != "condpdiff":
            return found
        if sample == 0 and self.aligned:  # whose style came out
            off = confusion(made[:, self.scored], np.stack(self.true)[:, self.scored])
            tier = "seen" if "seen" in self.tiers else "unseen"
            pairs = np.ndindex(off.shape)
            self.choices += [(tier, self.numbers[i], self.numbers[j], float(off[i, j])) for i, j in pairs]
        away = torch.linalg.vector_norm(self.encode(list(made)) - self.y, dim=1).tolist()
        return [{"to_condition": d, **each} for d, each in zip(away, found, strict=True)]

    def other_conditions(self) -> Mapping[str, Tensor]:
        """Other numbers of pictures, and pictures of noise."""
        random = np.random.default_rng(self.run.eval.seed)
        told = {f"pictures_{n}": [pictures[:n] for pictures in self.told] for n in PICTURES}
        told["noise"] = [random.integers(0, 256, pictures[:4].shape, dtype=np.uint8) for pictures in self.told]
        return {arm: self.encode(draws) for arm, draws in told.items()}

    def more(self, folder: Path) -> None:
        """`images/<arm>-<member>.png` of GRID, SHOWN captions of each; and one image between the first two styles."""
        (folder / "images").mkdir()
        shown = self.scored[:SHOWN]
        at = torch.linspace(0, 1, POINTS)[:, None]
        between = self.paint(self.generated((1 - at) * self.y[0] + at * self.y[1]))[:, shown[0]]
        first, second = self.numbers[:2]
        save_png(folder / "images" / f"{BETWEEN}-{first}.png", np.concatenate(between, axis=1), to=second)
        for i, q in enumerate(self.numbers):
            strips = {arm: self.images[arm][i][shown] for arm in GRID}
            strips["condition"] = self.told[i][:SHOWN]
            strips["truth"] = self.true[i][shown] if self.aligned else self.true[i][:SHOWN]
            for arm, pictures in strips.items():
                save_png(folder / "images" / f"{arm}-{q}.png", square_of(pictures), member=q)

    def write(self, folder: Path) -> None:
        """Beside arms.csv: choices.csv, where the true images are known."""
        super().write(folder)
        if self.aligned:
            columns = ["tier", "asked", "true", "rmse"]
            pd.DataFrame(self.choices, columns=columns).round(2).to_csv(folder / "choices.csv", index=False)


def square_of(pictures: np.ndarray) -> np.ndarray:
    """Four pictures uint8 [4, H, W, 3] as one, two above two; of fewer the first ones again."""
    one, two, three, four = pictures[np.arange(SHOWN) % len(pictures)]
    return np.vstack([np.hstack([one, two]), np.hstack([three, four])])
