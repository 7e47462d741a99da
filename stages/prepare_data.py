"""prepare-data TASK: a task's rows, cleaned and split, and what describes it."""

import sys
from pathlib import Path

from condpdiff.common.settings import section
from condpdiff.common.stage import run
from condpdiff.common.task import Data
from condpdiff.domain import module


def main() -> None:
    name = sys.argv[1]
    module("data").prepare_data(name, module("task").load_task(name), section("data", Data), Path("data/tasks", name))


if __name__ == "__main__":
    run(main)
