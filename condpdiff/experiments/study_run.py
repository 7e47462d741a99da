"""Runs a study's missing experiments with DVC's queue."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from condpdiff.common.errors import UserError
from condpdiff.experiments.finished import experiments, repository
from condpdiff.experiments.presets import Preset, as_dvc_options, changes, override
from condpdiff.experiments.study_plan import Row

Say = Callable[[str], None]


def run_rows(rows: list[Row], jobs: int, dry_run: bool, say: Say) -> None:
    """Run what is missing of `rows`; an experiment with a run's settings is that run, whatever its name.

    Args:
        jobs: so many experiments run side by side.
        say: prints one line.

    Raises:
        UserError: a name is taken by other settings (nothing has run then), or experiments failed (the others ran).
    """
    there = experiments()
    by_settings, names = {e.settings: e.name for e in there}, {e.name for e in there}
    missing = []
    for run in (run for row in rows for run in row.runs.values()):
        if (found := by_settings.get(run.settings)) is not None:
            say(f"{run.name}: there" + ("" if found == run.name else f", as {found}"))
        elif run.name in names:
            says = "an experiment of that name was run with other settings"
            raise UserError(f"{run.name}: {says}; `dvc exp remove {run.name}` removes it")
        else:
            missing.append(run)
    if dry_run:
        for run in missing:
            say(shlex.join(words(run)))
    elif not missing:
        say("all there")
    else:
        work_off(missing, jobs)
        have = {e.settings for e in experiments()}
        if failed := [run.name for run in missing if run.settings not in have]:
            why = f"`dvc queue logs {failed[0]}` tells why"
            raise UserError(f"{len(failed)} of {len(missing)} experiments failed: {', '.join(failed)}; {why}")
        say(f"{len(missing)} run, all there")


def words(run: Preset) -> list[str]:
    """The command that puts a run into the queue and sets its settings from the working tree's."""
    command = as_dvc_options(changes(run), "--queue", "-n", run.name)
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


def _dvc(*arguments: str) -> None:
    """Run `dvc ...`; stages are `python -m ...`, so this interpreter is put first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if subprocess.run([sys.executable, "-m", "dvc", *arguments], env={**os.environ, "PATH": path}).returncode:
        raise UserError(f"`dvc {shlex.join(arguments[:2])}` failed; it says why above")
