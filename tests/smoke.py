"""The whole DAG with configs/smoke.yaml in a throwaway clone, in plain sight: `python -m tests.smoke`."""

import subprocess
import tempfile
from pathlib import Path

from tests.clone import environment, throwaway_clone

COMMANDS = ("condpdiff preset smoke", "dvc repro", "python -m condpdiff.report.show")


def smoke(folder: Path) -> Path:
    """Clone the working tree into `folder` and run everything there, with this process's stdout and stderr."""
    clone = throwaway_clone(folder)
    for command in COMMANDS:
        print(f"$ {command}", flush=True)
        subprocess.run(command.split(), cwd=clone, env=environment(), check=True)
    return clone


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        smoke(Path(folder))
