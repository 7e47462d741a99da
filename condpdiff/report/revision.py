"""The Git revision that a report was made at."""

import subprocess

WATCHED = ("condpdiff", "stages", "configs", "params.yaml", "dvc.yaml")
"""What a result depends on; dvc.lock and the metrics change with every run."""


def revision() -> str:
    """Commit of the working directory, and whether code or settings differ from it; `unknown` without Git."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", *WATCHED)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"`{commit}`" + (" with uncommitted changes" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
