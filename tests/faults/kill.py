"""Kill stages in the middle; what the next run writes must be what an undisturbed one did.

`python -m tests.faults.kill [KILLS] [SEED]` runs the smoke preset in a throwaway clone, then ends its long stages at
random moments: by kill -9, and now and then by SIGTERM or Ctrl-C. It prints a line a kill, and a table at the end.
"""

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

from tests.clone import environment, run
from tests.smoke import smoke

STAGES = ("finetune-collect", "score-zoo", "train-ae", "train-ldm", "sample", "merge-eval", "probe")
LONGER = {"collect": {"steps": 60}, "ae": {"steps": 400}, "ldm": {"steps": 400}}
"""What makes the smoke preset's stages long enough to have resume points."""
SIGNALS = (signal.SIGKILL,) * 6 + (signal.SIGTERM, signal.SIGINT)
FREQUENT = {"CONDPDIFF_SAVE_AFTER": "0.3"}


def command(stage: str) -> list[str]:
    """Of this stage alone, though nothing changed."""
    return ["dvc", "repro", "--single-item", "--force", stage]


def outs(clone: Path, stage: str) -> dict[str, str]:
    """Path -> md5 of what a stage wrote, by dvc.lock."""
    lock = yaml.safe_load((clone / "dvc.lock").read_text(encoding="utf-8"))
    return {out["path"]: out["md5"] for out in lock["stages"][stage]["outs"]}


def end(clone: Path, stage: str, when: Callable[[], bool], by: signal.Signals, **changes: str) -> str:
    """Start a stage, end DVC and the stage once `when` says so, and give what they printed."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command(stage), cwd=clone, env=environment(**changes), stdout=log, stderr=log, start_new_session=True
        )
        while process.poll() is None and not when():
            time.sleep(0.02)
        if process.poll() is None:
            os.killpg(process.pid, by)
        process.wait()
        log.seek(0)
        return log.read()


def left(clone: Path, stage: str) -> list[Path]:
    """Resume points and results that a stage left."""
    return [path for kind in ("pt", "safetensors") for path in (clone / "tmp/unfinished" / stage).rglob(f"*.{kind}")]


def main(kills: int = 40, seed: int = 0) -> None:
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        clone = smoke(Path(folder))
        params = yaml.safe_load((clone / "params.yaml").read_text(encoding="utf-8"))
        for name, values in LONGER.items():
            params[name] |= values
        (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        run(clone, "dvc", "repro")
        tasks = params["tasks"]
        stages = [f"{s}@{tasks[0]}" if s in ("finetune-collect", "score-zoo", "merge-eval") else s for s in STAGES]
        whole, seconds, rows = {stage: outs(clone, stage) for stage in stages}, {}, []
        for stage in stages:
            began = time.monotonic()
            run(clone, *command(stage))
            seconds[stage] = time.monotonic() - began
            assert outs(clone, stage) == whole[stage], f"{stage}: two undisturbed runs differ"
        for number in range(kills):
            stage, by = stages[number % len(stages)], draw.choice(SIGNALS)
            at = time.monotonic() + draw.uniform(0.3, 1.0) * seconds[stage]
            end(clone, stage, lambda at=at: time.monotonic() >= at, by, **FREQUENT)
            kept = len(left(clone, stage))
            again = run(clone, *command(stage), **FREQUENT).stdout
            same, clean = outs(clone, stage) == whole[stage], not left(clone, stage)
            partial = [str(p.relative_to(clone)) for p in clone.glob("data/*/.*") if p.is_dir()]
            goes_on = "going on from step" in again
            rows.append({"stage": stage, "by": by.name, "kept": kept, "goes on": goes_on, "same": same})
            print(rows[-1], partial or "", flush=True)
            assert same and clean, again
        assert not run(clone, "dvc", "status", "--quiet", check=False).stdout
        table = pd.DataFrame(rows)
        print(
            table.groupby("stage")[["kept", "goes on", "same"]].agg({"kept": "mean", "goes on": "sum", "same": "sum"})
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
