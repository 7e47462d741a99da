"""check-base: every task fits the base model; said here, before any training."""

from pathlib import Path

from condpdiff.common.files import write_text
from condpdiff.common.settings import section, tasks
from condpdiff.common.stage import run
from condpdiff.domain import module
from condpdiff.zoo.settings import Collect

CHECKED = Path("data/base-checked")


def main() -> None:
    files, collect = {name: module("task").load_task(name) for name in tasks()}, section("collect", Collect)
    module("models").check_tasks(Path("data/base"), files, collect.rank, collect.target_modules)
    write_text(CHECKED, "every task fits the base model\n")  # always the same bytes, as of check-params


if __name__ == "__main__":
    run(main)
