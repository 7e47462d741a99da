"""finetune-collect TASK: fine-tune a LoRA on one task and keep its last N states."""

import sys
from pathlib import Path

from condpdiff.common.errors import run
from condpdiff.common.hardware import shared
from condpdiff.common.settings import section
from condpdiff.domain import module
from condpdiff.zoo.settings import Collect


def main() -> None:
    name = sys.argv[1]
    module("finetune").finetune(
        name,
        module("task").load_task(name),
        section("collect", Collect),
        data=Path("data/tasks", name),
        base=Path("data/base"),
        out=Path("data/zoo", name),
    )


if __name__ == "__main__":
    run(shared(main))
