"""The experiments that are there, by DVC's Python API: settings, values by task and arm, stage results."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import pandas as pd

from condpdiff.common.errors import UserError, first_line
from condpdiff.common.stage import stages_of

AVERAGE = "average"
ARMS, LOCK = "report/plots/arms.csv", "dvc.lock"


@dataclass(frozen=True)
class Experiment:
    name: str
    commit: str
    baseline: str  # the commit that it was run from
    settings: str  # `params.fingerprint` of what it was run with; empty for one of before there were such

    @cached_property
    def values(self) -> pd.DataFrame:
        """Task, or `average` over tasks x arm (selected candidate) and `ARM_mean` (over candidates); NaN: not there."""
        table = pd.read_csv(io.StringIO(read_at(self.commit, ARMS)), keep_default_na=False, na_values=[""])
        by_arm = table.pivot(index="task", columns="arm", values=["score", "mean"])
        values = pd.concat([by_arm["score"], by_arm["mean"].add_suffix("_mean")], axis=1).loc[table["task"].unique()]
        values.loc[AVERAGE] = values.mean(skipna=False)
        return values


def experiments() -> list[Experiment]:
    """All finished experiments, oldest first; a UserError if this is no repository of Git and DVC."""
    from dvc.api import exp_show

    with repository() as repo:
        listed = repo.experiments.ls(all_commits=True)
        found = [(name, commit, baseline) for baseline, of in listed.items() for name, commit in of]
        when = {commit: repo.scm.resolve_commit(commit).commit_time for _, commit, _ in found}
        shown = exp_show(revs=[*listed]) if listed else []  # of no commits it would show HEAD
    settings = {(row["Experiment"], row["rev"]): str(row.get("settings") or "") for row in shown}
    every = [Experiment(*one, settings.get((one[0], one[1][:7]), "")) for one in found]
    return sorted(every, key=lambda experiment: (when[experiment.commit], experiment.name))


@cache
def lock_at(commit: str) -> dict[str, str]:
    """Stage -> its entry of dvc.lock at a commit (command, dependencies, params, outs) as text; {} without a lock."""
    try:
        stages = stages_of(read_at(commit, LOCK))
    except UserError:
        return {}
    return {name: json.dumps(entry, sort_keys=True) for name, entry in stages.items()}


def read_at(commit: str, path: str) -> str:
    """A file of Git or DVC at a commit; a UserError if it is not there, nor in DVC's cache or remote."""
    from dvc.api import read

    with repository(f"{path} at {commit[:7]}"):
        return str(read(path, rev=commit))


@contextmanager
def repository(what: str = "experiments", **options: Any) -> Iterator[Any]:
    """DVC's repository of the working directory; a UserError: `what`, and a line of what DVC, Git or the disk says."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from scmrepo.exceptions import SCMError

    try:
        with Repo(**options) as repo:
            yield repo
    except (DvcException, SCMError, OSError) as error:
        raise UserError(f"{what}: {first_line(error)}") from None
