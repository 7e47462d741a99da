"""merge-eval of a family of text tasks: every arm's LoRAs on each member's validation rows."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from condpdiff.common.files import read_rows, read_tensors
from condpdiff.common.pretrained import loads_as
from condpdiff.common.task import Finetune, grouped, members
from condpdiff.diffusion import conditions as condition_file
from condpdiff.diffusion.conditions import PROJECTION, Projection, load_conditions
from condpdiff.diffusion.settings import Condition
from condpdiff.evaluate.settings import Eval
from condpdiff.evaluate.unseen import Trained, at_cost, without_generator
from condpdiff.generate.generator import Draw, Generator
from condpdiff.generate.settings import Sample
from condpdiff.text.conditions import inputs, nonsense_inputs
from condpdiff.text.encoder import load_encoder
from condpdiff.text.families.losses import Family
from condpdiff.text.task import Task
from condpdiff.text.unseen.score import Judge, accuracy, best_threshold, classifier_accuracy, cosines
from condpdiff.zoo.adapters import export_adapter
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.many import finetune_many
from condpdiff.zoo.normalized import Frame, load_frame
from condpdiff.zoo.settings import Collect

SEEN = 12
"""Training members of a family that are scored too."""
LABELLED, FEW_STEPS = (16, 64), 20
"""Labelled rows, on which a classifier is trained, and LoRAs in so many steps."""
CARD = """---
base_model: {base}
library_name: peft
tags: [lora, condpdiff]
---
# {task}: a generated LoRA

Sampled by Cond P-Diff from a description of the task (rank {rank}, alpha {alpha:g}). It has no head of its own: a
text's class is the nearer, by cosine, of the two directions of `fixed_head` to the mean of its last hidden states.

```python
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

from condpdiff.text.families.losses import fixed_head

base = AutoModel.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{folder}").eval()
tokens = AutoTokenizer.from_pretrained("{base}")(TEXT, return_tensors="pt")
scores = model(**tokens).last_hidden_state.mean(1) @ fixed_head(base.config.hidden_size).T  # no, yes
```
"""


class FamilyEvaluation:
    """One family's members that were never trained on, unseen and tuning ones, and SEEN of those that were."""

    def __init__(
        self, name: str, task: Task, data: Path, settings: Eval, condition: Condition, sample: Sample, collect: Collect
    ) -> None:
        assert task.members is not None
        self.name, self.task, self.data, self.settings = name, task, data, settings
        self.condition, self.sample = condition, sample
        self.unseen, self.seen = task.members.unseen, grouped("train")[name][:SEEN]
        self.family = Family(task, collect, data / "tasks" / name, data / "base")
        rows = {split: read_rows(data / "tasks" / name, split) for split in ("train", "held_out", "validation")}
        self.rows = {k: [each for _, each in frame.groupby("member")] for k, frame in rows.items()}
        self.trained_on = members("train")
        tiers = ["unseen"] * task.members.unseen + ["tuning"] * task.members.tuning
        self._score(grouped("unseen", "tuning")[name], tiers)
        file = data / "conditions" / condition_file.FILE
        self.conditions = load_conditions(file, [*self.trained_on, *self.names])
        soups = torch.stack([load_zoo(data / "zoo" / n).theta.mean(0) for n in self.trained_on])
        self.known = Trained(soups, self._y(self.trained_on))
        self.found: list[dict[str, Any]] = []

    def _y(self, names: list[str]) -> Tensor:
        """[M, d_cond]: mean of each one's conditions."""
        return torch.stack([self.conditions[name].mean(0) for name in names])

    def _score(self, names: list[str], tiers: list[str]) -> None:
        """From here on, these members."""
        self.names, self.tiers = names, tiers
        self.judges = {
            split: Judge(self.family.classifier, [self.rows[split][number(name)] for name in names])
            for split in ("held_out", "validation")
        }

    def record(self, arm: str, theta: Tensor, seconds: float = 0.0, of: int = 0) -> None:
        """Score one LoRA a member, theta [M, K]; `of` counts the samples of one arm."""
        self.note(arm, self.judges["validation"](theta), seconds, of, self.judges["held_out"](theta))

    def note(
        self, arm: str, found: np.ndarray, seconds: float = 0.0, of: int = 0, held_out: np.ndarray | None = None
    ) -> None:
        """Keep the accuracies [M] of an arm."""
        for i, (name, tier) in enumerate(zip(self.names, self.tiers, strict=True)):
            row = {"family": self.name, "member": number(name), "tier": tier, "arm": arm, "number": of}
            row |= {"seconds": round(seconds, 3), "held_out": np.nan if held_out is None else held_out[i]}
            self.found.append({**row, "accuracy": found[i]})

    def arms(self) -> None:
        """Score every arm; what is timed is one LoRA's making."""
        samples = read_tensors(self.data / "samples" / f"{self.name}.safetensors")["theta"]  # [M, S, K]
        own = torch.stack([load_zoo(self.data / "zoo" / n).theta.mean(0) for n in self.names])
        started = time.perf_counter()
        rivals = without_generator(self.known, self._y(self.names), self.settings.seed)
        each = (time.perf_counter() - started) / len(self.names)
        nothing = self.family.start.repeat(len(self.names), 1)
        self.record("no_lora", nothing)
        for arm, theta in rivals.items():
            self.record(arm, theta, each)
        for i in range(samples.shape[1]):
            self.record("condpdiff", samples[:, i], of=i)
        self.record("swapped", samples[:, 0].roll(1, 0))
        self.record("ridge_swapped", rivals["ridge"].roll(1, 0))
        self.record("own", own)
        self._otherwise()
        self._without_lora()
        # Fine-tuning is dear, and nothing is chosen by it: of unseen members alone.
        unseen = slice(self.unseen)
        self._score(self.names[unseen], self.tiers[unseen])
        starts = {"zero": nothing[unseen], "condpdiff": samples[unseen, 0]}
        self._few_rows(starts)
        starts["ridge"] = rivals["ridge"][unseen]
        losses = self.family.losses(self._numbers(), self.task.finetune.batch_size, self.settings.seed)
        at_cost(losses, starts, self.task.finetune, self.record)
        if self.seen:
            self._seen()

    def _numbers(self) -> list[int]:
        return [number(name) for name in self.names]

    def _otherwise(self) -> None:
        """The generator without noise, and under texts that mean nothing."""
        generator, frame = Generator.load(self.data), load_frame(self.data / "normalized", self.name)
        self.record("no_noise", self._mean(generator, frame))
        y = load_encoder(self.condition)(nonsense_inputs(self.task, self.condition.kind))
        if self.condition.axes is not None:
            y = Projection.load(self.data / "conditions" / PROJECTION)(y)
        draw = Draw(self.sample, len(self.names), self.settings.seed)
        self.record("noise", frame.to_theta(draw(generator, y, None)))

    def _mean(self, generator: Generator, frame: Frame) -> Tensor:
        """theta [M, K] without noise: of mu(y)."""
        asked = self._y(self.names).to(generator.model.device)
        return generator.to_theta(generator.model.mean(asked).cpu(), frame)

    def _without_lora(self) -> None:
        """Cosine of text and description, and logistic regression on embeddings, by the condition's encoder."""
        encode = load_encoder(self.condition)

        def texts(rows: list[pd.DataFrame]) -> Tensor:
            return torch.stack([encode(each["text"].tolist()) for each in rows])  # [M, V, d]

        def told(names: list[str]) -> Tensor:
            each = [encode(inputs(self.data / "tasks" / name, "task_info")).mean(0) for name in names]
            return torch.stack(each)

        known = [(self.data / "tasks" / name.partition("/")[0], number(name)) for name in self.trained_on]
        frames = {folder: read_rows(folder, "held_out") for folder, _ in known}
        rows = [frames[folder][frames[folder]["member"] == q] for folder, q in known]
        threshold = best_threshold(cosines(texts(rows), told(self.trained_on)), np.stack([e["label"] for e in rows]))
        mine = {split: [self.rows[split][q] for q in self._numbers()] for split in ("train", "validation")}
        scored, true = texts(mine["validation"]), self.judges["validation"].labels
        self.note("cosine", accuracy(cosines(scored, told(self.names)) > threshold, true))
        train = texts([each.iloc[: max(LABELLED)] for each in mine["train"]])
        labels = np.stack([each["label"].iloc[: max(LABELLED)] for each in mine["train"]])
        for n in LABELLED:
            self.note(f"classifier@{n}", classifier_accuracy(train[:, :n], labels[:, :n], scored, true))

    def _few_rows(self, starts: dict[str, Tensor]) -> None:
        """LoRAs from nothing and from condpdiff's first sample, on few labelled rows."""
        finetune: Finetune = self.task.finetune.model_copy(update={"steps": FEW_STEPS})
        for n in LABELLED:
            losses = self.family.losses(self._numbers(), finetune.batch_size, self.settings.seed, most=n)
            for start, theta in starts.items():
                self.record(f"{start}@{n}", finetune_many(losses, theta, finetune, f"{start}, {n} rows"))

    def _seen(self) -> None:
        """The same of members that were trained on: their own LoRAs, and what they are generated as."""
        generator, frame = Generator.load(self.data), load_frame(self.data / "normalized", self.name)
        self._score(self.seen, ["train"] * len(self.seen))
        ridge = without_generator(self.known, self._y(self.names), self.settings.seed)["ridge"]
        draw = Draw(self.sample, 1, self.settings.seed)
        made = torch.cat([frame.to_theta(draw(generator, self.conditions[name], None)) for name in self.names])
        self.record("own", self.known.soups[[self.trained_on.index(name) for name in self.names]])
        for arm, theta in (("ridge", ridge), ("no_noise", self._mean(generator, frame)), ("condpdiff", made)):
            self.record(arm, theta)
        self.record("ridge_swapped", ridge.roll(1, 0))
        self.record("swapped", made.roll(1, 0))

    def export(self, folder: Path) -> None:
        """`<member>/`: the sample that is right most often on the rows that tell of the member."""
        rows = pd.DataFrame(self.found)
        rows = rows[(rows["arm"] == "condpdiff") & (rows["tier"] != "train")]
        best = rows.loc[rows.groupby("member")["held_out"].idxmax()].set_index("member")["number"]
        theta = read_tensors(self.data / "samples" / f"{self.name}.safetensors")["theta"]
        for i, name in enumerate(grouped("unseen", "tuning")[self.name]):
            out = folder / str(number(name))
            out.mkdir()
            zoo, shown = load_zoo(self.data / "zoo" / name, 1), f"data/adapters/{name}"
            base = loads_as(self.data / "base")
            export_adapter(out, theta[i, int(best[number(name)])], zoo, base, shown, "FEATURE_EXTRACTION", CARD)


def number(name: str) -> int:
    """q of `<family>/<q>`."""
    return int(name.partition("/")[2])


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
    """Write arms.csv to `folder`, and to `adapters` each member's best sample as a PEFT adapter.

    Args:
        data: where the stages before wrote.

    Raises:
        UserError: a file or a package can't be had.
    """
    found = FamilyEvaluation(name, task, data, settings, condition, sample, collect)
    found.arms()
    pd.DataFrame(found.found).round(4).to_csv(folder / "arms.csv", index=False)
    found.export(adapters)
