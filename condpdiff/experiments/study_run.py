"""Runs a study's missing experiments with `dvc exp run`, one after another or with DVC's queue."""

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from condpdiff.common.errors import UserError
from condpdiff.common.settings import PARAMS
from condpdiff.experiments.presets import changes
from condpdiff.experiments.study_experiments import Experiments, remove
from condpdiff.experiments.study_plan import Row, Run

LOGS = Path(".dvc/tmp/studies")
"""One log an experiment; Git ignores .dvc/tmp."""
POLL = 2.0  # seconds between two looks at the queue
GRACE = 10.0  # seconds that DVC has to end after an interrupt
_WORD = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z_][\w./:-]*", re.IGNORECASE)
Say = Callable[[str], None]


def run_rows(rows: list[Row], jobs: int, force: bool, dry_run: bool, say: Say) -> None:
    """Run what is missing of `rows`; an experiment with a run's settings is that run, whatever its name.

    Args:
        jobs: above 1, DVC's queue runs so many experiments side by side.
        force: replace experiments that have a run's name and other settings.
        say: prints one line.

    Raises:
        UserError: a name is taken by other settings (nothing has run then), or experiments failed (the others ran).
    """
    experiments, missing = Experiments(), []
    for run in (run for row in rows for run in row.runs):
        found = experiments.by_settings.get(run.settings)
        if found is not None:
            say(f"{run.name}: there" + ("" if found.name == run.name else f", as {found.name}"))
        elif run.name in experiments.by_name and not force:
            raise UserError(
                f"{run.name}: an experiment of that name was run with other settings; --force replaces it, "
                f"`dvc exp remove {run.name}` removes it"
            )
        else:
            missing.append(run)
    if dry_run:
        for run in missing:
            say(shlex.join(["dvc", "exp", "run", "--temp", *options(run)]))
        return
    for old in (old for run in missing for old in experiments.by_name.get(run.name, [])):
        remove(old)
    LOGS.mkdir(parents=True, exist_ok=True)
    failed = _run_queued(missing, jobs, say) if jobs > 1 else _run_in_turn(missing, say)
    if missing:
        there = Experiments().by_settings
        failed |= {run.name for run in missing if run.settings not in there}
    if failed:
        logs = ", ".join(f"{run.name} ({LOGS / run.name}.log)" for run in missing if run.name in failed)
        raise UserError(f"{len(failed)} of {len(missing)} experiments failed: {logs}")
    say(f"{len(missing)} run, all there" if missing else "all there")


def options(run: Run) -> list[str]:
    """Words of `dvc exp run` that name a run and set its settings from the working tree's.

    Keys that params.yaml does not have yet are added (`++`).
    """
    words = ["-n", run.name]
    for change in changes(run.preset, PARAMS):
        added = "++" if change.old is None else ""
        words += ["-S", f"{added}{change.key}={override(yaml.safe_load(change.new))}"]
    for key, value in run.task_keys.items():
        file, _, dotted = key.partition(":")
        words += ["-S", f"{file}:++{dotted}={override(value)}"]
    return words


def override(value: Any) -> str:
    """A value in Hydra's grammar, which `-S` takes: text that is more than a word is quoted."""
    if isinstance(value, list):
        return f"[{','.join(map(override, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{override(k)}:{override(v)}' for k, v in value.items())}}}"
    if value is None:
        return "null"
    if not isinstance(value, str):
        return str(value)
    if _WORD.fullmatch(value):
        return value
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", "\\'")
    return f"'{escaped}'"


def _run_in_turn(runs: list[Run], say: Say) -> set[str]:
    """Names of the runs that failed; a failure does not stop the others."""
    failed = set()
    for i, run in enumerate(runs):
        say(f"[{i + 1}/{len(runs)}] {run.name}, log {LOGS / run.name}.log")
        if status := _call(["exp", "run", "--temp", *options(run)], run.name, sys.stdout.write):
            say(f"{run.name}: failed (status {status})")
            failed.add(run.name)
    return failed


def _run_queued(runs: list[Run], jobs: int, say: Say) -> set[str]:
    """The same with DVC's queue. Experiments that others have put there run as well."""
    from dvc.repo import Repo  # seconds

    def tasks() -> dict[str, dict[str, Any]]:
        """Revision in the queue -> name and status of our experiments."""
        with Repo() as repo:
            found = repo.experiments.celery_queue.status()
        names = {run.name for run in runs}
        return {task["rev"]: task for task in found if task["name"] in names and task["rev"] not in before}

    before: set[str] = set()
    before = set(tasks())  # earlier attempts, which the queue remembers
    failed = {run.name for run in runs if _call(["exp", "run", "--queue", *options(run)], run.name, None)}
    if len(failed) == len(runs):
        return failed
    said: dict[str, str] = {}
    try:
        _call(["queue", "start", "--jobs", str(jobs)], "queue", None)
        while True:
            ours = tasks()
            for rev, task in ours.items():
                if said.get(rev) != task["status"]:
                    said[rev] = task["status"]
                    say(f"{task['name']}: {task['status'].lower()}")
            if all(task["status"] not in ("Queued", "Running") for task in ours.values()):
                break
            time.sleep(POLL)
    except KeyboardInterrupt:
        left = {rev: task for rev, task in tasks().items() if task["status"] in ("Queued", "Running")}
        for status, verb in (("Queued", "remove"), ("Running", "kill")):
            if revs := [rev for rev, task in left.items() if task["status"] == status]:
                _call(["queue", verb, *(["--force"] if verb == "kill" else []), *revs], "queue", None)
        raise
    for rev, task in ours.items():
        _call(["queue", "logs", rev], task["name"], None)
        if task["status"] != "Success":
            failed.add(task["name"])
    return failed


def _call(words: list[str], log: str, show: Callable[[str], Any] | None) -> int:
    """Run `dvc ...`, its output into a log and, as it comes, to `show`; returns its exit status.

    Stages are `python -m ...`: this interpreter is put first on the path. An interrupt reaches the whole tree.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command, environment = [sys.executable, "-m", "dvc", *words], {**os.environ, "PATH": path}
    with (LOGS / f"{log}.log").open("w", encoding="utf-8") as file:
        if show is None:  # no pipe: the queue's workers would hold it open as long as they live
            return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
            output: Any = process.stdout
            try:
                # A piece is a line, or what a progress bar ends with a carriage return.
                for piece in io.TextIOWrapper(output, encoding="utf-8", errors="replace", newline=""):
                    file.write(piece)
                    file.flush()
                    show(piece)
                    sys.stdout.flush()
            except BaseException:
                _stop(process.pid)
                raise
    return process.returncode


def _stop(pid: int) -> None:
    """Interrupt DVC and its stage as Ctrl-C does, so that DVC puts the working tree back; kill what does not end."""
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        tree = [top, *top.children(recursive=True)]
        for one in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGINT)
        for one in psutil.wait_procs(tree, timeout=GRACE)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
