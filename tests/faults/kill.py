"""Kill stages in the middle; what the next run writes must be what an undisturbed one did.

`python -m tests.faults.kill [KILLS] [SEED] [PRESET]` runs a preset (smoke) in a throwaway clone, then ends its long
stages at random moments after the first fifth of their work: by kill -9, and now and then by SIGTERM or Ctrl-C. It
prints a line a kill, and a table at the end. The preset style-many-smoke has families, whose merge-eval writes seconds.
"""

import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import yaml

from tests.clone import commit, environment, run, set_key
from tests.smoke import smoke

STAGES = {
    "smoke": ("finetune-collect", "score-zoo", "train-ae", "train-ldm", "sample", "merge-eval", "probe"),
    "style-many-smoke": ("finetune-collect", "train-ldm"),
}
LONGER = {
    "smoke": {"collect.steps": 100, "ae.steps": 800, "ldm.steps": 800},
    "style-many-smoke": {"collect.steps": 60, "ldm.steps": 400, "ldm.task_loss.steps": 200, "ldm.task_loss.uses": 3},
}
"""What makes a preset's stages long enough to have resume points."""
SIGNALS = (signal.SIGKILL,) * 6 + (signal.SIGTERM, signal.SIGINT)
FREQUENT = {"CONDPDIFF_SAVE_AFTER": "0.3"}


def command(stage: str) -> list[str]:
    """Of this stage alone, though nothing changed."""
    return ["dvc", "repro", "--single-item", "--force", stage]


def outs(clone: Path, stage: str) -> dict[str, str]:
    """Path -> md5 of what a stage wrote, by dvc.lock."""
    lock = yaml.safe_load((clone / "dvc.lock").read_text(encoding="utf-8"))
    return {out["path"]: out["md5"] for out in lock["stages"][stage]["outs"]}


def end(clone: Path, stage: str, when: Callable[[str], bool], by: signal.Signals, **changes: str) -> str:
    """Start a stage, end DVC and the stage once `when` says so of what they have printed, and give that."""
    log = clone / "tmp" / "killed.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as file:
        process = subprocess.Popen(
            command(stage), cwd=clone, env=environment(**changes), stdout=file, stderr=file, start_new_session=True
        )
    while process.poll() is None and not when(log.read_text(encoding="utf-8")):
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, by)
    process.wait()
    return log.read_text(encoding="utf-8")


class Works:
    """Whether a stage has shown its first progress bar, and has worked for so many seconds since."""

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds, self.began = seconds, math.inf

    def __call__(self, printed: str) -> bool:
        if "%|" in printed:
            self.began = min(self.began, time.monotonic())
        return time.monotonic() - self.began >= self.seconds


def left(clone: Path, stage: str) -> list[Path]:
    """Resume points and results that a stage left."""
    return [path for kind in ("pt", "safetensors") for path in (clone / "tmp/unfinished" / stage).rglob(f"*.{kind}")]


def main(kills: str = "40", seed: str = "0", preset: str = "smoke") -> None:
    draw = random.Random(int(seed))
    with tempfile.TemporaryDirectory() as folder:
        clone = smoke(Path(folder), preset)
        for key, value in LONGER[preset].items():
            set_key(clone, "params.yaml", key, value)
        run(clone, "dvc", "repro")
        commit(clone, "undisturbed")
        tasks = yaml.safe_load((clone / "params.yaml").read_text(encoding="utf-8"))["tasks"]
        of_tasks = ("finetune-collect", "score-zoo", "merge-eval")
        stages = [f"{s}@{tasks[0]}" if s in of_tasks else s for s in STAGES[preset]]
        whole, seconds, rows = {stage: outs(clone, stage) for stage in stages}, {}, []
        for stage in stages:
            works = Works()
            end(clone, stage, works, signal.SIGKILL)
            seconds[stage] = time.monotonic() - works.began
            assert outs(clone, stage) == whole[stage], f"{stage}: two undisturbed runs differ"
        for number in range(int(kills)):
            stage, by = stages[number % len(stages)], draw.choice(SIGNALS)
            end(clone, stage, Works(draw.uniform(0.2, 1) * seconds[stage]), by, **FREQUENT)
            kept = len(left(clone, stage))
            again = run(clone, *command(stage), check=False, **FREQUENT)
            if half := bool(again.returncode) and "dvc.lock" in again.stdout:  # DVC writes it in place
                run(clone, "git", "checkout", "--", "dvc.lock")
                again = run(clone, *command(stage), **FREQUENT)
            same, clean = outs(clone, stage) == whole[stage], not left(clone, stage)
            goes_on = "going on from step" in again.stdout
            found = {"kept": kept, "goes on": goes_on, "half a dvc.lock": half, "same": same}
            rows.append({"stage": stage, "by": by.name, **found})
            print(rows[-1], flush=True)
            assert same and clean and not again.returncode, again.stdout
        assert not run(clone, "dvc", "status", "--quiet", check=False).stdout
        table = pd.DataFrame(rows)
        print(
            table.groupby("stage")[["goes on", "half a dvc.lock", "same"]]
            .sum()
            .assign(kills=table["stage"].value_counts())
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
