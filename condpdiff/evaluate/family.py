"""merge-eval of a family: every arm's LoRAs for its members, scored as its domain does."""

import itertools
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from condpdiff.common.files import read_tensors
from condpdiff.common.pretrained import loads_as
from condpdiff.common.stage import once
from condpdiff.common.task import Task, grouped, members, number
from condpdiff.diffusion.conditions import FILE, load_conditions
from condpdiff.diffusion.settings import Condition
from condpdiff.evaluate.settings import Eval
from condpdiff.generate.generator import Draw, Generator
from condpdiff.generate.settings import Sample
from condpdiff.generate.task_loss import ONE
from condpdiff.zoo.adapters import export_adapter
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.many import ManyFinetuning, finetune_many
from condpdiff.zoo.normalized import load_frame
from condpdiff.zoo.settings import Collect

SEEN = 6  # members that were trained on, whose LoRAs are generated too
BUDGETS, WARM_BUDGETS = (1, 5, 20, 40), (5, 20)
"""Steps of fine-tuning from nothing, and from a start that costs no training."""
NEIGHBOURS, TEMPERATURE = 4, 0.1  # of the softmax over cosine similarities: a task nearer by 0.1 weighs e times as much
PENALTIES = np.logspace(-3, 3, 13)  # of the regressions, from which leaving out one task at a time chooses


@dataclass(frozen=True)
class Run:
    """The sections of params.yaml that a family's evaluation depends on."""

    n_checkpoints: int  # N
    eval: Eval
    condition: Condition
    sample: Sample
    collect: Collect


class FamilyEvaluation(ABC):
    """One family's members that were never trained on, unseen and tuning ones, and after them SEEN of those that were.

    `names`, `numbers` and `tiers` are those of the M members that are scored now, `rules` what their rivals' LoRAs are.
    """

    best: tuple[str, bool]
    """A score that needs no labels and no training images, by which samples are chosen; whether higher is better."""
    warm: tuple[str, ...] = ("mean_soup", "nearest", "ridge")
    """Arms that fine-tuning is started from, beside nothing and condpdiff."""

    def __init__(self, name: str, task: Task, data: Path, run: Run, family: ManyFinetuning) -> None:
        assert task.members is not None
        self.name, self.task, self.data, self.run, self.family = name, task, data, run, family
        self.generator, self.frame = Generator.load(data), load_frame(data / "normalized", name)
        self.draw = Draw(run.sample, 1, run.eval.seed)
        self.trained_on = members("train")
        self.soups = self._soups(self.trained_on)
        self.rivals = Rivals(self.soups, self.asked(self.trained_on))
        self.samples = read_tensors(data / "samples" / f"{name}.safetensors")["theta"]
        """[M, S, K] of what sample wrote for the members that were not trained on."""
        self.rows: list[dict[str, Any]] = []
        tiers = ["unseen"] * task.members.unseen + ["tuning"] * task.members.tuning
        self.turn_to(grouped("unseen", "tuning")[name], tiers)

    def turn_to(self, names: Sequence[str], tiers: Sequence[str]) -> None:
        """Score these members from now on."""
        self.names, self.tiers = list(names), list(tiers)
        self.numbers = [number(name) for name in names]
        self.y = self.asked(self.names)
        self.rules = self.rivals.rules(self.y, self.run.eval.seed)

    def asked(self, names: Sequence[str]) -> Tensor:
        """Mean condition of each member, [M, d_cond]."""
        return torch.stack([y.mean(0) for y in load_conditions(self.data / "conditions" / FILE, list(names)).values()])

    def _soups(self, names: Sequence[str]) -> Tensor:
        """Mean checkpoint of each member, [M, K]."""
        return torch.stack([load_zoo(self.data / "zoo" / k, self.run.n_checkpoints).theta.mean(0) for k in names])

    @abstractmethod
    def scores(self, arm: str, theta: Tensor, sample: int) -> list[dict[str, float]]:
        """Of one LoRA a member, theta [M, K]: every score that stands in arms.csv."""

    @abstractmethod
    def other_conditions(self) -> Mapping[str, Tensor]:
        """Arm -> other conditions [M, d_cond] that the generator is asked with."""

    @abstractmethod
    def more(self, folder: Path) -> None:
        """What a domain adds for members that were not trained on: arms of its own, and what is shown of them."""

    def record(self, arm: str, theta: Tensor, seconds: float = 0.0, sample: int = 0) -> None:
        """Score one LoRA a member, theta [M, K], each of which took so many seconds to make."""
        self.note(arm, self.scores(arm, theta, sample), seconds, sample)

    def note(self, arm: str, found: Sequence[Mapping[str, float]], seconds: float = 0.0, sample: int = 0) -> None:
        """Keep an arm's scores, of each member."""
        for q, tier, scores in zip(self.numbers, self.tiers, found, strict=True):
            cells = {"family": self.name, "member": q, "tier": tier, "arm": arm, "number": sample}
            self.rows.append({**cells, "seconds": round(seconds, 3), **scores})

    def generated(self, y: Tensor) -> Tensor:
        """One sample [M, K] for each condition [M, d_cond], all from one noise."""
        return torch.cat([self.frame.to_theta(self.draw(self.generator, each[None], None)) for each in y])

    def evaluate(self, folder: Path, adapters: Path) -> None:
        """Write arms.csv and what is shown to `folder`, and each member's best sample to `adapters`.
        Raises UserError: a file or a package can't be had.
        """
        self.arms()
        self.more(folder)
        # Fine-tuning is dear, and nothing is chosen by it: of some unseen members alone.
        if tuned := min(self.run.eval.starts, self.tiers.count("unseen")):
            self.turn_to(self.names[:tuned], self.tiers[:tuned])
            self.starts()
        if seen := grouped("train")[self.name][:SEEN]:
            self.turn_to(seen, ["seen"] * len(seen))
            self._seen()
        self.write(folder)
        self._export(adapters)

    def arms(self) -> None:
        """Score every arm for members that were not trained on."""
        self.record("no_lora", self._nothing())
        for arm, rule in self.rules.items():
            self.record(arm, *self._timed(rule))
        if (one := self.data / "ldm" / ONE).is_file():
            self.record("one_for_all", read_tensors(one)["theta"].expand(len(self.names), -1))
        _, each = self._timed(lambda: self.generated(self.y))
        for i in range(self.samples.shape[1]):
            self.record("condpdiff", self.samples[:, i], each, i)
        self.record("no_noise", self.frame.to_theta(self.generator.without_noise(self.y)), each)
        self._swapped(self.rules["ridge"](), self.samples[:, 0])
        for arm, y in self.other_conditions().items():
            self.record(arm, self.generated(y), each)
        self.record("own", self._soups(self.names), math.nan)

    def _timed(self, make: Callable[[], Any]) -> tuple[Any, float]:
        """What is made for all members, and its seconds a member."""
        began = time.perf_counter()
        made = make()
        return made, (time.perf_counter() - began) / len(self.names)

    def starts(self) -> None:
        """Fine-tune from nothing, and from what costs no fine-tuning; what a step costs tells what `own` did."""
        starts = {"zero": self._nothing(), "condpdiff": self.samples[: len(self.names), 0]}
        starts |= {arm: self.rules[arm]() for arm in self.warm}
        losses = self.family.losses(self.numbers, self.task.finetune.batch_size, self.run.eval.seed)
        for arm, start in starts.items():
            for steps in BUDGETS if arm == "zero" else WARM_BUDGETS:
                finetune, what = self.task.finetune.model_copy(update={"steps": steps}), f"{arm}, {steps} steps"
                tune = partial(finetune_many, losses, start, self.family.trained, finetune, what)
                made = once(what, partial(self._tuned, tune))
                self.record(f"{arm}+{steps}", made["theta"], float(made["seconds"]))
        longest = BUDGETS[-1]
        a_step = next(row["seconds"] for row in self.rows if row["arm"] == f"zero+{longest}") / longest
        collect = self.run.collect
        steps = (collect.steps or self.task.finetune.steps) + collect.max_checkpoints * collect.every
        for row in (row for row in self.rows if row["arm"] == "own"):
            row["seconds"] = round(a_step * steps, 3)

    def _tuned(self, tune: Callable[[], Tensor]) -> dict[str, Tensor]:
        theta, seconds = self._timed(tune)
        return {"theta": theta, "seconds": torch.tensor(seconds, dtype=torch.float64)}

    def _nothing(self) -> Tensor:
        """[M, K]: LoRAs before any training."""
        return self.family.start.repeat(len(self.names), 1)

    def _seen(self) -> None:
        """Members that were trained on: their own LoRAs, and what stands in their place."""
        soup, ridge, made = self.rules["mean_soup"](), self.rules["ridge"](), self.generated(self.y)
        own = self.soups[[self.trained_on.index(name) for name in self.names]]
        for arm, theta in {"mean_soup": soup, "ridge": ridge, "condpdiff": made, "own": own}.items():
            self.record(arm, theta)
        self._swapped(ridge, made)

    def _swapped(self, ridge: Tensor, made: Tensor) -> None:
        """Every member under another one's condition."""
        self.record("ridge_swapped", ridge.roll(1, 0))
        self.record("swapped", made.roll(1, 0))

    def write(self, folder: Path) -> None:
        """arms.csv"""
        pd.DataFrame(self.rows).round(4).to_csv(folder / "arms.csv", index=False)

    def _export(self, folder: Path) -> None:
        """`<member>/`: the best sample of each member that was not trained on, as a PEFT adapter."""
        rows, (key, higher) = pd.DataFrame(self.rows), self.best
        by_member = rows[(rows["arm"] == "condpdiff") & (rows["tier"] != "seen")].groupby("member")[key]
        best = rows.loc[by_member.idxmax() if higher else by_member.idxmin()].set_index("member")["number"]
        base = loads_as(self.data / "base")
        for name, samples in zip(grouped("unseen", "tuning")[self.name], self.samples, strict=True):
            out = folder / str(number(name))
            out.mkdir()
            zoo, theta = load_zoo(self.data / "zoo" / name, 1), samples[int(best[number(name)])]
            export_adapter(out, theta, zoo, base, f"data/adapters/{name}")


class Rivals:
    """Every rule that needs no generator, fitted when it is first asked for to the tasks that one was trained on.

    mean_soup       the mean of all soups, whatever the condition
    nearest         the soup of the task of the most similar condition (cosine)
    softmax_nearest NEIGHBOURS soups, weighted by the softmax of their similarity
    ridge           linear regression from condition to soup; its penalty by leaving tasks out
    kernel_ridge    the same with a Gaussian kernel, whose width is the median distance
    ridge_gaussian  ridge, and a draw of its residuals on the tasks left out
    """

    def __init__(self, soups: Tensor, y: Tensor) -> None:
        """Args: soups: [Q, K], mean of each task's checkpoints; y: [Q, d_cond], mean of each one's conditions."""
        self.soups, self.mean, self.centre = soups, soups.mean(0), y.mean(0)
        self.known = y - self.centre

    @cached_property
    def span(self) -> tuple[np.ndarray, Tensor]:
        """Coordinates [Q, n] of the soups along axes [n, K]: a regression on them gives combinations of them alone."""
        left, lengths, axes = torch.linalg.svd(self.soups - self.mean, full_matrices=False)
        return (left * lengths).numpy(), axes

    @cached_property
    def ridge(self) -> Any:
        from sklearn.linear_model import RidgeCV

        return RidgeCV(PENALTIES * float(self.known.square().sum(1).mean())).fit(self.known.numpy(), self.span[0])

    @cached_property
    def kernel(self) -> Any:
        from sklearn.kernel_ridge import KernelRidge
        from sklearn.metrics.pairwise import rbf_kernel

        (targets, _), x, width = self.span, self.known.numpy(), float(torch.pdist(self.known).median())

        def off_left_out(gamma: float, alpha: float) -> float:  # mean square, in closed form
            inverse = np.linalg.inv(rbf_kernel(x, gamma=gamma) + alpha * np.eye(len(x)))
            return float(np.square(inverse @ targets / np.diag(inverse)[:, None]).mean())

        pairs = itertools.product([1 / (s * width) ** 2 for s in (0.5, 1, 2)], PENALTIES)
        gamma, alpha = min(pairs, key=lambda pair: off_left_out(*pair))
        return KernelRidge(alpha=alpha, kernel="rbf", gamma=gamma).fit(x, targets)

    def rules(self, y: Tensor, seed: int) -> dict[str, Callable[[], Tensor]]:
        """What makes the LoRAs [S, K] of each rule for the conditions y [S, d_cond]; the seed is of what is drawn."""
        asked = y - self.centre
        near = cosine_similarity(asked[:, None], self.known[None], dim=2)  # [S, Q]

        def softmax_nearest() -> Tensor:
            weights, of = near.topk(min(NEIGHBOURS, len(self.known)), dim=1)
            return (torch.softmax(weights / TEMPERATURE, dim=1)[..., None] * self.soups[of]).sum(1)

        def predicted(regression: Any, off: Tensor | float = 0.0) -> Tensor:
            coordinates = torch.from_numpy(regression.predict(asked.numpy())).float() + off
            return self.mean + coordinates @ self.span[1]

        def ridge_gaussian() -> Tensor:
            targets = self.span[0]
            off = torch.from_numpy(targets - _left_out(self.known.numpy(), targets, float(self.ridge.alpha_))).float()
            draws = torch.randn(len(y), len(off), generator=torch.Generator().manual_seed(seed))
            return predicted(self.ridge, draws / len(off) ** 0.5 @ off)

        return {
            "mean_soup": lambda: self.mean.expand(len(y), -1),
            "nearest": lambda: self.soups[near.argmax(1)],
            "softmax_nearest": softmax_nearest,
            "ridge": lambda: predicted(self.ridge),
            "kernel_ridge": lambda: predicted(self.kernel),
            "ridge_gaussian": ridge_gaussian,
        }


def _left_out(x: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """What ridge regression predicts of each task without it [Q, n], in closed form."""
    gram = x @ x.T
    hat = np.linalg.solve(gram + penalty * np.eye(len(x)), gram).T + 1 / len(x)  # the mean is fitted too
    return (hat @ targets - np.diag(hat)[:, None] * targets) / (1 - np.diag(hat))[:, None]
