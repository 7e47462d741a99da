"""The experiments that are there, by DVC's Python API: settings, values by task and arm, stage results."""

import csv
import io
import json
import statistics
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from condpdiff.common.errors import UserError, first_line
from condpdiff.experiments.params import Params
from condpdiff.report.compare import number

AVERAGE = "average"
ARMS, LOCK = "report/plots/arms.csv", "dvc.lock"
FIRST = ("condpdiff_mean", "condpdiff", "soup", "original")
EFFECTS = ("condition_effect", "statistics_effect")
MAX_COLUMNS = 40
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it is built in
Values = dict[str, dict[str, float]]
"""Task, or `average` -> arm -> value; `ARM_mean` is the mean over an arm's candidates, ARM the selected one."""


@dataclass(frozen=True)
class Experiment:
    """One finished experiment."""

    name: str
    commit: str
    baseline: str
    """The commit that it was run from."""
    settings: str
    """`params.fingerprint` of what it was run with; empty for one of before there were such."""

    @cached_property
    def values(self) -> Values:
        """What report/plots/arms.csv of the experiment has; an average is over its tasks."""
        values: Values = {}
        for line in csv.DictReader(io.StringIO(read_at(self.commit, ARMS))):
            scores = {line["arm"]: line["score"], f"{line['arm']}_mean": line["mean"]}
            values.setdefault(line["task"], {}).update({arm: float(text) for arm, text in scores.items() if text})
        shared = [arm for arm in next(iter(values.values()), {}) if all(arm in of_task for of_task in values.values())]
        return values | {AVERAGE: {arm: statistics.fmean(v[arm] for v in values.values()) for arm in shared}}

    @cached_property
    def lock(self) -> dict[str, str]:
        """Stage of dvc.lock -> its entry as text: command, dependencies, params and outs."""
        return lock_at(self.commit)


def experiments() -> list[Experiment]:
    """All finished experiments of the repository, oldest first.

    Raises:
        UserError: this is no repository of Git and DVC.
    """
    with repository() as repo:
        listed = repo.experiments.ls(all_commits=True)
        found = [(name, commit, baseline) for baseline, of in listed.items() for name, commit in of]
        when = {commit: repo.scm.resolve_commit(commit).commit_time for _, commit, _ in found}
    settings = {(row["Experiment"], row["rev"]): str(row.get("settings") or "") for row in _shown(listed)}
    every = [Experiment(*one, settings.get((one[0], one[1][:7]), "")) for one in found]
    return sorted(every, key=lambda experiment: (when[experiment.commit], experiment.name))


def table() -> tuple[list[str], list[list[str]]]:
    """Columns and rows of `condpdiff experiments`: HEAD and every experiment, with the keys in which they differ.

    `dvc exp show` has a column for every key of params.yaml and for every dependency, and no way to turn them off.
    """
    with repository() as repo:
        baselines = [repo.scm.get_rev(), *repo.experiments.ls(all_commits=True)]
    head, *shown = (row for row in _shown(dict.fromkeys(baselines)) if row["rev"] != "workspace")
    # What is queued, runs or failed has the figures of the commit that it starts from.
    rows = [head, *(row for row in shown if row["Experiment"] and row["State"] in (None, "Success"))]
    figures = [*(f"{AVERAGE}.{arm}" for arm in FIRST), *EFFECTS]
    ours = [key for key in head if key.removeprefix("params.yaml:").partition(".")[0] in Params.model_fields]
    params = [key for key in ours if len({str(row.get(key)) for row in rows}) > 1]
    lines = [
        [row["Experiment"] or f"({row['rev']})"]
        + [number(float(row[key])) if isinstance(row.get(key), float) else "–" for key in figures]
        + [f"{row[key]:g}" if isinstance(row.get(key), float) else str(row.get(key) or "–") for key in params]
        for row in rows
    ]
    columns = ["experiment", *(key.removeprefix(f"{AVERAGE}.") for key in figures), *params]
    return columns[:MAX_COLUMNS], [line[:MAX_COLUMNS] for line in lines]


def remove(experiment: Experiment) -> None:
    """Forget an experiment, as `dvc exp remove` does; its stages' results stay in DVC's cache."""
    with repository() as repo:
        repo.scm.remove_ref(f"refs/exps/{experiment.baseline[:2]}/{experiment.baseline[2:]}/{experiment.name}")


def lock_at(commit: str) -> dict[str, str]:
    """Stage -> entry of dvc.lock at a commit, as text; nothing where there is no dvc.lock."""
    try:
        data = yaml.load(read_at(commit, LOCK), Loader=_LOADER)  # a safe loader
    except UserError:
        return {}
    return {name: json.dumps(entry, sort_keys=True) for name, entry in data.get("stages", {}).items()}


def read_at(commit: str, path: str) -> str:
    """A file of Git or DVC at a commit.

    Raises:
        UserError: it is not there, or neither in DVC's cache nor in its remote.
    """
    from dvc.api import read

    with _dvc(f"{path} at {commit[:7]}"):
        return str(read(path, rev=commit))


def _shown(baselines: Iterable[str]) -> list[dict[str, Any]]:
    """Rows of `dvc exp show` for these commits; none, which would show HEAD, for none."""
    from dvc.api import exp_show

    with _dvc("experiments"):
        return list(exp_show(revs=list(baselines))) if baselines else []


@contextmanager
def repository(what: str = "experiments", **options: Any) -> Iterator[Any]:
    """DVC's repository of the working directory; an error begins with `what`, `options` are of DVC's `Repo`.

    Raises:
        UserError: there is none, or DVC can't use it.
    """
    from dvc.repo import Repo

    with _dvc(what), Repo(**options) as repo:
        yield repo


@contextmanager
def _dvc(what: str) -> Iterator[None]:
    """One line of whatever DVC, Git or a file system under them says."""
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        yield
    except (DvcException, SCMError, OSError) as error:
        raise UserError(f"{what}: {first_line(error)}") from None
