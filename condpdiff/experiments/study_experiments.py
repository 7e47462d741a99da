"""The experiments that are there: DVC's named commits, read with plain Git and found by their settings.

A DVC experiment is a commit under refs/exps/<its baseline commit>/<name>; params.yaml, the tasks' files, dvc.lock and
report/metrics.json of a run stand in it.
"""

import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import yaml

from condpdiff.common.errors import UserError
from condpdiff.common.settings import PARAMS
from condpdiff.common.task import TASKS
from condpdiff.experiments.study_plan import settings_of

METRICS, LOCK = "report/metrics.json", "dvc.lock"
_REF = re.compile(r"refs/exps/(?P<start>[0-9a-f]{2})/(?P<rest>[0-9a-f]{38})/(?P<name>\S+)")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it is built in


@dataclass(frozen=True)
class Experiment:
    """One finished experiment."""

    name: str
    ref: str
    commit: str
    baseline: str
    """The commit that it was run from."""
    metrics: dict[str, Any]
    """Content of report/metrics.json: task, or `average` -> arm -> value."""

    @cached_property
    def lock(self) -> dict[str, str]:
        """Stage of dvc.lock -> its entry as text: command, dependencies, params and outs."""
        return lock_at(self.commit)


class Experiments:
    """All finished experiments of a repository, by name and by settings; of equal ones the newest."""

    def __init__(self) -> None:
        output = _git("for-each-ref", "--sort=committerdate", "--format=%(refname) %(objectname)", "refs/exps")
        refs = [line.split() for line in output.splitlines() if _REF.match(line)]
        files = [(commit, path) for _, commit in refs for path in (str(PARAMS), METRICS)]
        first = dict(zip(files, contents(files), strict=True))
        parsed = {commit: _yaml(first[commit, str(PARAMS)]) for _, commit in refs}
        listed = {commit: params.get("tasks") for commit, params in parsed.items()}
        tasks = {commit: names if isinstance(names, list) else [] for commit, names in listed.items()}
        files = [(commit, f"{TASKS / str(task)}.yaml") for commit, names in tasks.items() for task in names]
        task_files = dict(zip(files, contents(files), strict=True))
        self.by_name: dict[str, list[Experiment]] = {}
        self.by_settings: dict[str, Experiment] = {}
        for ref, commit in refs:
            found = _REF.match(ref)
            if found is None or (metrics := first[commit, METRICS]) is None:
                continue  # saved by hand before it had a result
            baseline = found["start"] + found["rest"]
            experiment = Experiment(found["name"], ref, commit, baseline, _yaml(metrics))
            self.by_name.setdefault(experiment.name, []).append(experiment)
            texts = {str(task): task_files[commit, f"{TASKS / str(task)}.yaml"] for task in tasks[commit]}
            try:
                settings = settings_of(parsed[commit], {task: _yaml(text) for task, text in texts.items()}, ref)
            except UserError:
                continue  # of another version of the project, whose settings are not these
            self.by_settings[settings] = experiment


def remove(experiment: Experiment) -> None:
    """Forget an experiment, as `dvc exp remove` does; its stages' results stay in DVC's cache."""
    _git("update-ref", "-d", experiment.ref, experiment.commit)


def lock_at(commit: str) -> dict[str, str]:
    """Stage -> entry of dvc.lock at a commit, as text; nothing where there is no dvc.lock."""
    (text,) = contents([(commit, LOCK)])
    return {name: json.dumps(entry, sort_keys=True) for name, entry in _yaml(text).get("stages", {}).items()}


def contents(files: Iterable[tuple[str, str]]) -> list[str | None]:
    """Text of files at commits, in one Git process; None for one that is not there."""
    names = "".join(f"{commit}:{path}\n" for commit, path in files)
    output = _git_bytes("cat-file", "--batch", stdin=names.encode())
    found: list[str | None] = []
    start = 0
    for _ in names.splitlines():
        end = output.index(b"\n", start)
        header = output[start:end].split()
        if header[-1] == b"missing":
            found.append(None)
            start = end + 1
        else:
            size = int(header[-1])
            found.append(output[end + 1 : end + 1 + size].decode("utf-8", "replace"))
            start = end + 1 + size + 1
    return found


@cache  # most experiments hold the same task files
def _yaml(text: str | None) -> dict[str, Any]:
    try:
        data = yaml.load(text or "", Loader=_LOADER)  # a safe loader
    except yaml.YAMLError:
        return {}
    return data if isinstance(data, dict) else {}


def _git(*words: str) -> str:
    return _git_bytes(*words).decode("utf-8", "replace")


def _git_bytes(*words: str, stdin: bytes = b"") -> bytes:
    """Raises a UserError where Git has nothing to read."""
    try:
        return subprocess.run(["git", *words], input=stdin, capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise UserError("git: no such command; experiments are commits of this repository") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().splitlines() or ["it failed"]
        raise UserError(f"git {words[0]}: {said[0]}") from None
