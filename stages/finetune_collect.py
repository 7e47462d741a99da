"""finetune-collect TASK: fine-tune a LoRA on one task and keep its last N states."""

import sys
from pathlib import Path

from condpdiff.errors import run
from condpdiff.hardware import shared
from condpdiff.params.collect import Collect
from condpdiff.params.section import section
from condpdiff.params.task import load_task
from condpdiff.text.finetune import finetune


def main() -> None:
    name = sys.argv[1]
    finetune(
        name,
        load_task(name),
        section("collect", Collect),
        data=Path("data/tasks", name),
        base=Path("data/base"),
        out=Path("data/zoo", name),
    )


if __name__ == "__main__":
    run(shared(main))
