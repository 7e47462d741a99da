"""finetune-collect TASK: fine-tune a LoRA on one task and keep its last N states."""

import sys
from pathlib import Path

from condpdiff.domain import module
from condpdiff.errors import run
from condpdiff.hardware import shared
from condpdiff.params.collect import Collect
from condpdiff.params.section import section


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
