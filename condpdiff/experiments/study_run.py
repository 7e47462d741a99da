"""Runs a study's missing experiments with DVC's queue, whose workers outlive this process."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from condpdiff.common.errors import UserError
from condpdiff.experiments.finished import experiments, repository
from condpdiff.experiments.presets import Preset, as_dvc_options, changes, override
from condpdiff.experiments.study_plan import Row

POLL = 2.0  # seconds between two looks at the queue
OPEN = ("Queued", "Running")
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
        work_off(missing, jobs, say)
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


def work_off(runs: list[Preset], jobs: int, say: Say) -> None:
    """Queue the runs and wait until all are done; experiments that others have queued run as well.

    Ctrl-C takes those that have not begun out of the queue and kills those that run.
    """
    names = {run.name for run in runs}

    def ours() -> dict[str, dict[str, Any]]:
        """Revision in the queue -> name and status of our experiments."""
        with repository() as repo:
            found = repo.experiments.celery_queue.status()
        return {task["rev"]: task for task in found if task["name"] in names}

    if earlier := [rev for rev, task in ours().items() if task["status"] not in OPEN]:
        _dvc("queue", "remove", *earlier)  # attempts that failed, and whose logs would be shown for the new ones'
    said: dict[str, str] = {}
    done: set[str] = set()
    try:
        for run in runs:
            _dvc(*words(run)[1:])
        _dvc("queue", "start", "--jobs", str(jobs))
        while done != names:
            time.sleep(POLL)
            for rev, task in ours().items():
                if said.get(rev) != task["status"]:
                    said[rev] = task["status"]
                    follow = f"; `dvc queue logs --follow {task['name']}` shows it" * (task["status"] == "Running")
                    say(f"{task['name']}: {task['status'].lower()}{follow}")
                if task["status"] not in OPEN:
                    done.add(task["name"])
    except KeyboardInterrupt:
        left = ours().items()
        for status, verb in (("Queued", ["remove"]), ("Running", ["kill", "--force"])):
            if revs := [rev for rev, task in left if task["status"] == status]:
                _dvc("queue", *verb, *revs)
        raise


def _dvc(*arguments: str) -> None:
    """Run `dvc ...`; stages are `python -m ...`, so this interpreter is put first on the path.

    Raises:
        UserError: it ended with an error, whose last line is told.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command, environment = [sys.executable, "-m", "dvc", *arguments], {**os.environ, "PATH": path}
    # No pipe: the queue's workers would hold it open as long as they live.
    log = Path(".dvc/tmp/study.log")
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
    if status:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it failed"]
        raise UserError(f"dvc {' '.join(arguments[:2])}: {said[-1]}")
