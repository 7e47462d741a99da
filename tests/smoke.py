"""The whole DAG with a small preset in a throwaway clone, in plain sight: `python -m tests.smoke [PRESET]`."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.clone import environment, throwaway_clone


def smoke(folder: Path, preset: str = "smoke") -> Path:
    """Clone the working tree into `folder` and run everything there, with this process's stdout and stderr."""
    clone = throwaway_clone(folder)
    for command in (f"condpdiff preset {preset}", "dvc repro", "python -m condpdiff.report.show"):
        print(f"$ {command}", flush=True)
        subprocess.run(command.split(), cwd=clone, env=environment(), check=True)
    return clone


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        smoke(Path(folder), *sys.argv[1:])
