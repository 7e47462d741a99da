"""The whole of params.yaml, checked before the first stage does work."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from condpdiff.autoencoder.settings import Autoencoder
from condpdiff.common.errors import UserError
from condpdiff.common.settings import PARAMS, Section, parse, read_yaml, rule_line, value_of
from condpdiff.common.task import Base, Data, Members, Task, read_task
from condpdiff.diffusion.settings import Condition, Ldm
from condpdiff.domain import module
from condpdiff.evaluate.settings import Eval, Probe
from condpdiff.generate.settings import Sample
from condpdiff.report.settings import Report
from condpdiff.zoo.settings import SHARED, Collect, Normalize, Performance

LEAST_TRAINED = 4  # members of all families that a generator and its rivals can be trained on


class Params(Section):
    """One section a stage; the only truth of a run. What one domain alone asks stands in its `task.check`."""

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
    probe: Probe
    eval: Eval
    report: Report

    @model_validator(mode="after")
    def _sections_agree(self) -> "Params":
        n, n_max = self.normalize.n_checkpoints, self.collect.max_checkpoints
        rows = self.performance.rows + self.eval.select_rows
        asks_for_none = self.sample.performance is None or self.ldm.performance != "none"
        rules = {
            "tasks": (len(set(self.tasks)) == len(self.tasks), "each task once"),
            "normalize.n_checkpoints": (n <= n_max, f"at most collect.max_checkpoints = {n_max}"),
            "data.held_out": (self.data.held_out >= rows, f"at least performance.rows + eval.select_rows = {rows}"),
            "ae.latent_length": (self.ae.latent_length % 4 == 0, "a multiple of 4"),
            "sample.performance": (asks_for_none, "null with ldm.performance: none"),
        }
        for key, (holds, allowed) in rules.items():
            if not holds:
                raise ValueError(f"{key}: {value_of(self, key)!r}, allowed: {allowed}")
        return self


def load_params(path: Path = PARAMS) -> tuple[Params, dict[str, Any]]:
    """Check params.yaml and the file of every task that it names.
    Raises UserError: the first thing wrong, in one line."""
    return check_run(read_yaml(path), str(path))


def check_run(data: Any, where: str, known: Mapping[str, Any] | None = None) -> tuple[Params, dict[str, Any]]:
    """The same with the content of params.yaml; an error names `where` it stands, and `known` tasks are not read."""
    params = parse(Params, data, where)
    domain = module("task", params.domain)
    tasks = {name: (known or {}).get(name) or read_task(name, domain.Task) for name in params.tasks}
    try:
        domain.check(params, tasks)
        _check_families(params, {name: each.members for name, each in tasks.items()})
    except ValueError as error:
        raise UserError(f"{where}: {rule_line(str(error))}") from None
    return params, tasks


def _check_families(params: Section, members: Mapping[str, Members | None]) -> None:
    """Raise unless tasks are all families or none, and a run of families is set up for them."""
    families = [name for name, found in members.items() if found is not None]
    needed: dict[str, tuple[Any, ...]] = {}
    if families:
        if len(families) < len(members):
            raise ValueError(f"tasks: {list(members)}, allowed: families alone, or none ({families[0]} is one)")
        for name, found in members.items():
            if found and (not found.unseen or found.unseen + found.tuning < 2):
                says = f"members.unseen: {found.unseen} ({name}, tuning {found.tuning})"
                raise ValueError(f"{says}, allowed: at least 1, and 2 with tuning")
        at_most = value_of(params, "normalize.train_members")
        if sum(found.trained_on(at_most).train for found in members.values() if found) < LEAST_TRAINED:
            raise ValueError(f"tasks: {families}, allowed: families with {LEAST_TRAINED} members to train on in all")
        needed = {"normalize.layers": ("all",), "ldm.performance": ("none",), "probe.samples": (0,)}
        needed["normalize.method"] = SHARED
    if (steps := value_of(params, "ldm.task_loss.steps")) > 0:
        if not families:
            raise ValueError(f"ldm.task_loss.steps: {steps}, allowed: 0 where no task is a family")
        needed |= {"ae.arch": ("pca",), "ldm.prediction": ("sample",)}
    for key, choices in needed.items():
        if (found := value_of(params, key)) not in choices:
            raise ValueError(f"{key}: {found!r}, allowed: {' or '.join(map(str, choices))} (for families)")


def fingerprint(params: Params, tasks: Mapping[str, Task]) -> str:
    """Settings as a word of 12 letters: equal for equal settings of a run and its tasks, however they are written."""
    # The digits of SHA-256 are the letters a to p: `dvc exp show` takes 12345e67 for a number.
    files = {name: task.model_dump(mode="json") for name, task in tasks.items()}
    text = json.dumps([params.model_dump(mode="json"), files], sort_keys=True)
    return "".join(chr(ord("a") + int(digit, 16)) for digit in hashlib.sha256(text.encode()).hexdigest()[:12])
