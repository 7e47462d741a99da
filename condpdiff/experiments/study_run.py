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
from condpdiff.experiments.finished import experiments, remove, repository
from condpdiff.experiments.presets import Preset, as_dvc_options, changes, override
from condpdiff.experiments.study_plan import Row

POLL = 2.0  # seconds between two looks at the queue
OPEN = ("Queued", "Running")
LOOKS = 5  # in a row in which a run that is not done is in no list, before it counts as taken away
Say = Callable[[str], None]


def run_rows(rows: list[Row], jobs: int, force: bool, dry_run: bool, say: Say) -> None:
    """Run what is missing of `rows`; an experiment with a run's settings is that run, whatever its name.

    Args:
        jobs: so many experiments run side by side.
        force: replace experiments that have a run's name and other settings.
        say: prints one line.

    Raises:
        UserError: a name is taken by other settings (nothing has run then), or experiments failed (the others ran).
    """
    missing = missing_runs(rows, force, say)
    if dry_run:
        for run in missing:
            say(shlex.join(words(run)))
    elif not missing:
        say("all there")
    else:
        wanted = {run.name for run in missing}
        for old in (old for old in (experiments() if force else []) if old.name in wanted):
            remove(old)
        work_off(missing, jobs, say)
        have = {e.settings for e in experiments()}
        if failed := [run.name for run in missing if run.settings not in have]:
            why = f"`dvc queue logs {failed[0]}` tells why"
            raise UserError(f"{len(failed)} of {len(missing)} experiments failed: {', '.join(failed)}; {why}")
        say(f"{len(missing)} run, all there")


def missing_runs(rows: list[Row], force: bool, say: Say) -> list[Preset]:
    """The runs of `rows` that no experiment has the settings of; of the others, `say` tells where they are.

    Raises:
        UserError: a name is taken by other settings, and not `force`.
    """
    there = experiments()
    by_settings, names = {e.settings: e for e in there}, {e.name for e in there}
    missing = []
    for run in (run for row in rows for run in row.runs.values()):
        found = by_settings.get(run.settings)
        if found is not None:
            say(f"{run.name}: there" + ("" if found.name == run.name else f", as {found.name}"))
        elif run.name in names and not force:
            raise UserError(
                f"{run.name}: an experiment of that name was run with other settings; --force replaces it, "
                f"`dvc exp remove {run.name}` removes it"
            )
        else:
            missing.append(run)
    return missing


def words(run: Preset, how: str = "--queue") -> list[str]:
    """The command that puts a run into the queue, or runs it by itself (`--temp`), with its settings."""
    command = as_dvc_options(changes(run), how, "-n", run.name)
    for key, value in run.task_keys.items():
        command += ["-S", f"{key.replace(':', ':++', 1)}={override(value)}"]
    return command


def work_off(runs: list[Preset], jobs: int, say: Say) -> None:
    """Queue the runs and wait until none of them is open; experiments that others have queued run as well.

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
    unseen = 0
    try:
        for run in runs:
            _dvc(*words(run)[1:])
        _dvc("queue", "start", "--jobs", str(jobs))
        while True:
            for rev, task in (now := ours()).items():
                if said.get(rev) != task["status"]:
                    said[rev] = task["status"]
                    follow = f"; `dvc queue logs --follow {task['name']}` shows it" * (task["status"] == "Running")
                    say(f"{task['name']}: {task['status'].lower()}{follow}")
            # DVC reads its lists one after the other: a run that moves on meanwhile is in none of them.
            done = {task["name"] for task in now.values() if task["status"] not in OPEN}
            unseen = 0 if len(now) > len(done) else unseen + 1
            if done == names or unseen == LOOKS:
                break
            time.sleep(POLL)
    except KeyboardInterrupt:
        left = ours().items()
        for status, verb in (("Queued", ["remove"]), ("Running", ["kill", "--force"])):
            if revs := [rev for rev, task in left if task["status"] == status]:
                _dvc("queue", *verb, *revs)
        raise


def environment() -> dict[str, str]:
    """This process's, with this interpreter first on the path: stages are `python -m ...`."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def _dvc(*arguments: str) -> None:
    """Run `dvc ...`.

    Raises:
        UserError: it ended with an error, whose last line is told.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    # No pipe: the queue's workers would hold it open as long as they live.
    log = Path(".dvc/tmp/study.log")
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment()).returncode
    if status:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it failed"]
        raise UserError(f"dvc {' '.join(arguments[:2])}: {said[-1]}")
