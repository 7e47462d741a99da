"""prepare-data TASK: a task's rows, cleaned and split, and what describes it."""

import sys
from pathlib import Path

from condpdiff.domain import module
from condpdiff.errors import run
from condpdiff.params.data import Data
from condpdiff.params.section import section


def main() -> None:
    name = sys.argv[1]
    module("data").prepare_data(name, module("task").load_task(name), section("data", Data), Path("data/tasks", name))


if __name__ == "__main__":
    run(main)
