"""The whole of params.yaml, checked before the first stage does work."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from condpdiff.autoencoder.settings import Autoencoder
from condpdiff.common.errors import UserError
from condpdiff.common.settings import PARAMS, Section, parse, read_yaml
from condpdiff.common.task import Base, Data
from condpdiff.diffusion.settings import Condition, Ldm
from condpdiff.domain import module
from condpdiff.evaluate.settings import Eval, Interpolate, Probe
from condpdiff.generate.settings import Sample
from condpdiff.report.settings import Report
from condpdiff.zoo.settings import Collect, Normalize, Performance

# What the shared sections may name in each domain.
ALLOWED = {
    "text": {
        "base.source": ("package", "hub", "local"),
        "condition.kind": ("task_info_few_shot", "task_info", "few_shot", "one_hot", "learnable"),
        "condition.encoder": ("minilm", "clip"),
    },
    "style": {
        "base.source": ("trained", "hub", "local"),
        "condition.kind": ("style_images", "one_hot", "learnable"),
        "condition.encoder": ("efficientnet_lite0", "resnet18"),
    },
}


class Params(Section):
    """One section a stage; the only truth of a run."""

    domain: Literal["text", "style"]
    tasks: list[str] = Field(min_length=1)
    data: Data
    base: Base
    collect: Collect
    performance: Performance
    normalize: Normalize
    ae: Autoencoder
    condition: Condition
    ldm: Ldm
    sample: Sample
    interpolate: Interpolate
    probe: Probe
    eval: Eval
    report: Report

    @model_validator(mode="after")
    def _domain_has_them(self) -> "Params":
        for key, allowed in ALLOWED[self.domain].items():
            section, name = key.split(".")
            if (found := getattr(getattr(self, section), name)) not in allowed:
                raise ValueError(f"{key}: {found}, allowed: {', '.join(allowed)} (domain: {self.domain})")
        return self

    @model_validator(mode="after")
    def _sections_agree(self) -> "Params":
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("tasks: a task is named twice")
        if self.normalize.n_checkpoints > self.collect.max_checkpoints:
            raise ValueError(
                f"normalize.n_checkpoints: {self.normalize.n_checkpoints}, allowed: at most "
                f"collect.max_checkpoints = {self.collect.max_checkpoints}"
            )
        needed = self.performance.rows + self.eval.select_rows
        if self.data.held_out < needed:
            raise ValueError(
                f"data.held_out: {self.data.held_out}, allowed: at least performance.rows + eval.select_rows = {needed}"
            )
        if self.ae.latent_length % 4:
            raise ValueError(f"ae.latent_length: {self.ae.latent_length}, allowed: a multiple of 4")
        if self.ldm.performance == "none" and self.sample.performance is not None:
            raise ValueError(f"sample.performance: {self.sample.performance}, allowed: null with ldm.performance: none")
        if self.domain == "style" and self.eval.image_steps < 2:
            raise ValueError(f"eval.image_steps: {self.eval.image_steps}, allowed: at least 2 (diffusers' pipeline)")
        if self.domain == "style" and self.eval.images < 2:
            raise ValueError(f"eval.images: {self.eval.images}, allowed: at least 2, for a Fréchet distance")
        if self.interpolate.samples > self.sample.count:
            raise ValueError(
                f"interpolate.samples: {self.interpolate.samples}, allowed: at most sample.count = {self.sample.count}"
            )
        return self


def load_params(path: Path = PARAMS) -> tuple[Params, dict[str, Any]]:
    """Check params.yaml and the file of every task that it names.

    Raises:
        UserError: the first thing wrong, in one line.
    """
    params = parse(Params, read_yaml(path), str(path))
    return params, load_tasks(params)


def load_tasks(params: Params) -> dict[str, Any]:
    """The file of every task of a run, as its domain reads it.

    Raises:
        UserError: a file is wrong, or two styles' first metrics differ.
    """
    load_task = module("task", params.domain).load_task
    tasks = {name: load_task(name) for name in params.tasks}
    if params.domain == "style":
        _same_metric(tasks)
    return tasks


def _same_metric(tasks: dict[str, Any]) -> None:
    """Means over styles are of one distance; the scores of text tasks have percent in common."""
    (first, task), *others = tasks.items()
    for name, other in others:
        if other.metrics[0] != task.metrics[0]:
            raise UserError(
                f"configs/tasks/{name}.yaml: metrics: found {other.metrics[0]!r} first, allowed: "
                f"{task.metrics[0]!r} first, as {first!r} has it: the report takes means over styles"
            )
