"""encode-conditions: y of every task, by the condition's kind."""

from pathlib import Path

from condpdiff.condition import conditions
from condpdiff.condition_file import FILE, TEXTS, save_conditions
from condpdiff.errors import run
from condpdiff.files import new_directory, read_json, write_json
from condpdiff.params.condition import Condition
from condpdiff.params.section import section, tasks
from condpdiff.text.description import DESCRIPTION

OUT = Path("data/conditions")


def main() -> None:
    described = {name: read_json(Path("data/tasks", name, DESCRIPTION)) for name in tasks()}
    y, texts = conditions(section("condition", Condition), described)
    with new_directory(OUT) as folder:
        save_conditions(folder / FILE, y)
        write_json(folder / TEXTS, texts)


if __name__ == "__main__":
    run(main)
