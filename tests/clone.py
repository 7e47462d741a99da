"""Throwaway clones of the working tree, for running the DAG without touching it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ("dvc.lock", "report/metrics.json")
"""What a run of the DAG writes and Git tracks; a clone starts without them."""
DATES = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2000-01-01T00:00:00Z")
"""Of every commit: clones of equal content then have equal commits, which the report names."""


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with this interpreter's `python` and `dvc` first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", **changes}


def run(folder: Path, *command: str, check: bool = True, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a clone; `changes` are variables of its environment, stdout holds both streams."""
    done = subprocess.run(
        command, cwd=folder, env=environment(**changes), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done


def throwaway_clone(folder: Path) -> Path:
    """Copy every file that Git tracks or would track into a fresh repository with one commit."""
    listed = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.splitlines()
    for name in listed:
        source = ROOT / name
        if source.is_file() and name not in RESULTS:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "config", "user.name", "test")  # `dvc exp run` commits, too
    run(folder, "git", "config", "user.email", "test@example.org")
    commit(folder, "clone")
    return folder


def set_key(clone: Path, file: str, key: str, value: Any) -> None:
    """Change one key of a YAML file."""
    path = clone / file
    section = content = yaml.safe_load(path.read_text(encoding="utf-8"))
    *parents, leaf = key.split(".")
    for parent in parents:
        section = section[parent]
    section[leaf] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def commit(folder: Path, message: str) -> None:
    """Commit everything that Git does not ignore."""
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message, **DATES)


def stages_run(output: str) -> set[str]:
    """The stages that a `dvc repro` really ran, by its output; those restored from a cache are not among them."""
    return set(re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE))
