"""finetune-collect TASK: fine-tune a LoRA on one task, or on each member of a family; or take a zoo of one's own."""

import sys
from pathlib import Path

from condpdiff.adapters.place import place
from condpdiff.common.hardware import shared
from condpdiff.common.settings import section
from condpdiff.common.stage import part, run
from condpdiff.domain import module
from condpdiff.zoo.collect import collect_zoo
from condpdiff.zoo.many import collect_many
from condpdiff.zoo.settings import Collect


def main() -> None:
    name, collect = sys.argv[1], section("collect", Collect)
    data, base, out = Path("data/tasks", name), Path("data/base"), Path("data/zoo", name)
    task = module("task").load_task(name)
    if task.zoo is not None:
        if part()[1] == 1:  # else another job of the array does it
            place(name, task, collect, base, out)
    elif task.members is None:
        collect_zoo(module("finetune").TextFinetuning(name, task, collect, data, base), out)
    else:
        family = module("families.losses").Family(task, collect, data, base)
        collect_many(family, name, task.finetune, collect, out)


if __name__ == "__main__":
    run(shared(main, lambda: module("task").load_task(sys.argv[1]).members is not None))
