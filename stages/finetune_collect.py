"""finetune-collect TASK: fine-tune a LoRA on one task and keep its last N states, or take a zoo of the user's own."""

import sys
from pathlib import Path

from condpdiff.adapters.place import place
from condpdiff.common.errors import run
from condpdiff.common.hardware import shared
from condpdiff.common.settings import section
from condpdiff.domain import module
from condpdiff.zoo.settings import Collect


def main() -> None:
    name, collect = sys.argv[1], section("collect", Collect)
    task, base, out = module("task").load_task(name), Path("data/base"), Path("data/zoo", name)
    if task.zoo is not None:
        place(name, task, collect, base, out)
    else:
        module("finetune").finetune(name, task, collect, Path("data/tasks", name), base, out)


if __name__ == "__main__":
    run(shared(main))
