"""prepare-data TASK: a task's rows, cleaned and split, and the texts that describe it."""

import sys
from pathlib import Path

from condpdiff.errors import run
from condpdiff.files import new_directory, write_json
from condpdiff.params.data import Data
from condpdiff.params.section import section
from condpdiff.params.task import load_task
from condpdiff.text.data import label_summary, prepare
from condpdiff.text.description import DESCRIPTION, describe


def main() -> None:
    name = sys.argv[1]
    limits = section("data", Data)
    task = load_task(name)
    frames = prepare(task.data, name, limits)
    with new_directory(Path("data/tasks") / name) as folder:
        for split, frame in frames.items():
            frame.to_parquet(folder / f"{split}.parquet", index=False)
        write_json(folder / DESCRIPTION, describe(task, frames["train"]))
    print(f"{name}: " + ", ".join(f"{split} {label_summary(task.data, frame)}" for split, frame in frames.items()))


if __name__ == "__main__":
    run(main)
