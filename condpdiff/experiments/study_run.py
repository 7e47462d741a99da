"""Runs a study's missing experiments with DVC's queue."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from condpdiff.common.errors import UserError
from condpdiff.experiments.finished import repository
from condpdiff.experiments.presets import Preset, as_dvc_options, changes, override
from condpdiff.experiments.study_plan import Study
from condpdiff.experiments.study_results import read

Say = Callable[[str], None]


def run_rows(study: Study, jobs: int, dry_run: bool, say: Say) -> None:
    """Run what is missing of a study, `jobs` side by side; `say` prints one line.
    Raises UserError: a name is taken by other settings (nothing has run then), or experiments failed (the others ran).
    """
    missing = missing_runs(study, say)
    if dry_run:
        for run in missing:
            say(shlex.join(words(run)))
        return
    if not missing:
        say("all there")
        return
    work_off(missing, jobs)
    found_now = read(study).found
    if failed := [run.name for run in missing if run.name not in found_now]:
        why = f"`dvc queue logs {failed[0]}` tells why"
        raise UserError(f"{len(failed)} of {len(missing)} experiments failed: {', '.join(failed)}; {why}")
    say(f"{len(missing)} run, all there")


def missing_runs(study: Study, say: Say) -> list[Preset]:
    """The runs of a study that no experiment has the settings of; of the others, `say` tells where they are.
    Raises UserError: a name is taken by other settings.
    """
    results = read(study)
    if taken := results.taken:
        says = "an experiment of that name was run with other settings"
        raise UserError(f"{taken[0]}: {says}; `dvc exp remove {taken[0]}` removes it")
    for name, found in results.found.items():
        say(f"{name}: there" + ("" if found.name == name else f", as {found.name}"))
    return [run for run in study.runs if run.name not in results.found]


def words(run: Preset, how: str = "--queue") -> list[str]:
    """The command that puts a run into the queue, or runs it by itself (`--temp`), with its settings."""
    command = as_dvc_options(changes(run), how, "-n", run.name)
    for key, value in run.task_keys.items():
        command += ["-S", f"{key.replace(':', ':++', 1)}={override(value)}"]
    return command


def work_off(runs: list[Preset], jobs: int) -> None:
    """Queue the runs and work the queue off, with what others have put there; DVC shows the experiments' logs.

    Ctrl-C takes those that have not begun out of the queue and kills those that run.
    """
    names = {run.name for run in runs}

    def ours(*statuses: str) -> list[str]:
        """Revisions in the queue of our experiments."""
        with repository() as repo:
            found = repo.experiments.celery_queue.status()
        return [task["rev"] for task in found if task["name"] in names and task["status"] in statuses]

    if earlier := ours("Failed", "Success"):
        _dvc("queue", "remove", *earlier)  # attempts that failed, and whose logs would be shown for the new ones'
    try:
        for run in runs:
            _dvc(*words(run)[1:])
        _dvc("exp", "run", "--run-all", "--jobs", str(jobs))
    except KeyboardInterrupt:
        for status, verb in (("Queued", ["remove"]), ("Running", ["kill", "--force"])):
            if revs := ours(status):
                _dvc("queue", *verb, *revs)
        raise


def environment() -> dict[str, str]:
    """This process's, with this interpreter first on the path: stages are `python -m ...`."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def _dvc(*arguments: str) -> None:
    """Run `dvc ...`."""
    if subprocess.run([sys.executable, "-m", "dvc", *arguments], env=environment()).returncode:
        raise UserError(f"`dvc {shlex.join(arguments[:2])}` failed; it says why above")
