"""merge-eval of a family of styles: every arm's LoRAs, the images that they make, and their distances."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from condpdiff.common.files import read_tensors
from condpdiff.common.pretrained import loads_as
from condpdiff.common.task import grouped, members
from condpdiff.diffusion import conditions as condition_file
from condpdiff.diffusion.conditions import load_conditions
from condpdiff.diffusion.settings import Condition
from condpdiff.evaluate.settings import Eval
from condpdiff.evaluate.unseen import BUDGETS, Trained, at_cost, without_generator
from condpdiff.generate.generator import Draw, Generator
from condpdiff.generate.settings import Sample
from condpdiff.generate.task_loss import MULTI
from condpdiff.style import models
from condpdiff.style.conditions import pictures_of
from condpdiff.style.families import drawing
from condpdiff.style.families.losses import Family
from condpdiff.style.rows import save_png
from condpdiff.style.task import DrawnSource, Task
from condpdiff.style.unseen.fresh import captions, load_projected
from condpdiff.style.unseen.score import Judge, Painter, confusion
from condpdiff.zoo.adapters import export_adapter
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.normalized import load_frame
from condpdiff.zoo.settings import Collect

PICTURES = (1, 4, 10)
"""Pictures of a condition, beside the number that its file asks for."""
SHOWN = 4
"""Captions whose images are kept, of the scored ones."""
SEEN = 6
"""Members that were trained on, whose LoRAs are generated too."""
POINTS, BETWEEN = 5, "between"
"""Conditions on the line between the first two members' that are generated for, and what their images are called."""
GRID = ("no_lora", "mean_soup", "nearest", "ridge", "condpdiff", "own")
"""Arms whose images are kept."""


class FamilyEvaluation:
    """One family's members that were never trained on, unseen and tuning ones, and all that is known of them."""

    def __init__(
        self, name: str, task: Task, data: Path, settings: Eval, condition: Condition, sample: Sample, collect: Collect
    ) -> None:
        assert task.members is not None
        self.name, self.task, self.data, self.settings = name, task, data, settings
        self.collect, self.sample, self.names = collect, sample, grouped("unseen", "tuning")[name]
        self.numbers = [int(member.partition("/")[2]) for member in self.names]
        self.unseen = task.members.unseen
        zoo = load_zoo(data / "zoo" / self.names[0])
        self.layout, self.scale = zoo.layout, zoo.config["alpha"] / zoo.config["rank"]
        base = data / "base"
        self.family = Family(task, collect, data / "tasks" / name, base)
        self.paint = Painter(base, zoo.layout, self.scale, captions(), settings)
        self.aligned = isinstance(task.data.source, DrawnSource)
        self.true = [pictures_of(data / "tasks" / name, q, "train") for q in self.numbers]
        self.judge = Judge(base, list(drawing.SCORED), self.true, self.aligned)
        self.told = [pictures_of(data / "tasks" / name, q) for q in self.numbers]
        self.encode = load_projected(condition, data)
        file = data / "conditions" / condition_file.FILE
        self.trained_on = members("train")
        self.y = {k: v.mean(0) for k, v in load_conditions(file, [*self.trained_on, *self.names]).items()}
        self.generator, self.frame = Generator.load(data), load_frame(data / "normalized", name)
        self.rows: list[dict[str, Any]] = []
        self.images: dict[str, np.ndarray] = {}

    def record(self, arm: str, theta: Tensor, seconds: float, number: int = 0) -> None:
        """Make and judge the images of one LoRA a member, theta [M, K]."""
        made = self.paint(theta)
        if number == 0:
            self.images[arm] = made
        asked = torch.stack([self.y[name] for name in self.names])
        off = torch.linalg.vector_norm(self.encode(list(made)) - asked, dim=1).numpy()
        for i, q in enumerate(self.numbers):
            self.rows.append(
                {
                    "family": self.name,
                    "member": q,
                    "tier": "unseen" if i < self.unseen else "tuning",
                    "arm": arm,
                    "number": number,
                    "seconds": round(seconds, 3),
                    "to_condition": float(off[i]),
                    **self.judge.distances(made[i], i),
                }
            )

    def arms(self) -> None:
        """Score every arm; what is timed is one LoRA's making, its images apart."""
        samples = read_tensors(self.data / "samples" / f"{self.name}.safetensors")["theta"]  # [M, S, K]
        soups = torch.stack([load_zoo(self.data / "zoo" / n).theta.mean(0) for n in self.trained_on])
        own = torch.stack([load_zoo(self.data / "zoo" / n).theta.mean(0) for n in self.names])
        asked = torch.stack([self.y[name] for name in self.names])
        known = Trained(soups, torch.stack([self.y[name] for name in self.trained_on]))
        started = time.perf_counter()
        rivals = without_generator(known, asked, self.settings.seed)
        each = (time.perf_counter() - started) / len(asked)
        nothing = self.family.start.repeat(len(asked), 1)
        self.record("no_lora", nothing, 0.0)
        for arm, theta in rivals.items():
            self.record(arm, theta, each)
        seconds = self._conditions()
        for number in range(samples.shape[1]):
            self.record("condpdiff", samples[:, number], seconds, number)
        self.record("swapped", samples[:, 0].roll(1, 0), 0.0)
        self.record("no_noise", self.frame.to_theta(self.generator.without_noise(asked)), 0.0)
        if (multi := self.data / "ldm" / MULTI).is_file():
            self.record("multi_style", read_tensors(multi)["theta"].expand(len(asked), -1), 0.0)
        starts = {"zero": nothing, "condpdiff": samples[:, 0]}
        starts |= {arm: rivals[arm] for arm in ("mean_soup", "nearest", "ridge")}
        losses = self.family.losses(self.numbers, self.task.finetune.batch_size, self.settings.seed)
        at_cost(losses, starts, self.family.trained, self.task.finetune, self.record)
        steps, rows = BUDGETS[-1], pd.DataFrame(self.rows)
        a_step = rows.loc[rows["arm"] == f"zero+{steps}", "seconds"].iloc[0] / steps
        self.record("own", own, a_step * (self.collect.steps or self.task.finetune.steps))

    def _conditions(self) -> float:
        """The generator under other numbers of pictures, and under pictures of noise; seconds of one LoRA, of four."""
        generator, frame = self.generator, self.frame
        draw, random = Draw(self.sample, 1, self.settings.seed), np.random.default_rng(self.settings.seed)
        told = {f"pictures_{n}": [t[:n] for t in self.told] for n in PICTURES}
        told["noise"] = [random.integers(0, 256, t[:4].shape, dtype=np.uint8) for t in self.told]
        taken: dict[str, float] = {}
        for arm, draws in told.items():
            started = time.perf_counter()
            w = torch.cat([draw(generator, self.encode([pictures]), None) for pictures in draws])
            taken[arm] = (time.perf_counter() - started) / len(draws)
            self.record(arm, frame.to_theta(w), taken[arm])
        one, other = (self.y[name] for name in self.names[:2])
        between = [one + (other - one) * i / (POINTS - 1) for i in range(POINTS)]
        w = torch.cat([draw(generator, y[None], None) for y in between])
        self.images[BETWEEN] = self.paint(frame.to_theta(w))
        return taken["pictures_4"]

    def choices(self) -> pd.DataFrame:
        """tier, asked, true, rmse: of LoRAs generated for a member, to every member's true images."""
        scored = list(drawing.SCORED)
        groups = {"unseen": (self.numbers, self.images["condpdiff"], np.stack(self.true))}
        if seen := grouped("train")[self.name][:SEEN]:
            draw, numbers = Draw(self.sample, 1, self.settings.seed), [int(n.partition("/")[2]) for n in seen]
            y = load_conditions(self.data / "conditions" / condition_file.FILE, seen)
            w = torch.cat([draw(self.generator, y[name].mean(0, keepdim=True), None) for name in seen])
            true = np.stack([pictures_of(self.data / "tasks" / self.name, q, "train") for q in numbers])
            groups["seen"] = numbers, self.paint(self.frame.to_theta(w)), true
        rows = []
        for tier, (numbers, made, true) in groups.items():
            found = confusion(made[:, scored], true[:, scored])
            rows += [(tier, i, j, found[a, b]) for a, i in enumerate(numbers) for b, j in enumerate(numbers)]
        return pd.DataFrame(rows, columns=["tier", "asked", "true", "rmse"])

    def export(self, folder: Path) -> None:
        """`<member>/`: the sample whose images are nearest to the member's condition."""
        rows = pd.DataFrame(self.rows)
        rows = rows[rows["arm"] == "condpdiff"]
        nearest = rows.loc[rows.groupby("member")["to_condition"].idxmin()].set_index("member")["number"]
        theta = read_tensors(self.data / "samples" / f"{self.name}.safetensors")["theta"]
        for i, q in enumerate(self.numbers):
            zoo, out = load_zoo(self.data / "zoo" / self.names[i], 1), folder / str(q)
            out.mkdir()
            best = theta[i, int(nearest[q])]
            shown = f"data/adapters/{self.name}/{q}"
            export_adapter(out, best, zoo, loads_as(self.data / "base"), shown, models.TASK_TYPE, models.CARD)

    def write(self, folder: Path) -> None:
        """arms.csv, choices.csv where the true images are known, and `images/<arm>-<member>.png` of GRID.

        Each image shows SHOWN captions.
        """
        pd.DataFrame(self.rows).round(4).to_csv(folder / "arms.csv", index=False)
        if self.aligned:
            self.choices().round(2).to_csv(folder / "choices.csv", index=False)
        (folder / "images").mkdir()
        shown = list(drawing.SCORED)[:SHOWN]
        between = [np.concatenate(list(images[shown[:1]]), axis=1) for images in self.images[BETWEEN]]
        first, second = self.numbers[:2]
        save_png(folder / "images" / f"{BETWEEN}-{first}.png", np.concatenate(between, axis=1), to=second)
        for i, q in enumerate(self.numbers):
            strips = {arm: self.images[arm][i][shown] for arm in GRID}
            strips["condition"] = self.told[i][:SHOWN]
            strips["truth"] = self.true[i][shown] if self.aligned else self.true[i][:SHOWN]
            for arm, pictures in strips.items():
                save_png(folder / "images" / f"{arm}-{q}.png", square_of(pictures), member=q)


def square_of(pictures: np.ndarray) -> np.ndarray:
    """Four pictures uint8 [4, H, W, 3] as one, two above two; of fewer the first ones again."""
    one, two, three, four = pictures[np.arange(SHOWN) % len(pictures)]
    return np.concatenate([np.concatenate([one, two], axis=1), np.concatenate([three, four], axis=1)])


def evaluate_family(
    data: Path,
    name: str,
    task: Task,
    settings: Eval,
    condition: Condition,
    sample: Sample,
    collect: Collect,
    folder: Path,
    adapters: Path,
) -> None:
    """Write arms.csv and images to `folder`, and to `adapters` each member's nearest sample as a PEFT adapter.

    Args:
        data: where the stages before wrote.

    Raises:
        UserError: a file or a package can't be had.
    """
    found = FamilyEvaluation(name, task, data, settings, condition, sample, collect)
    found.arms()
    found.write(folder)
    found.export(adapters)
