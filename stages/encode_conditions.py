"""encode-conditions: y of every task, by the condition's kind."""

from pathlib import Path

from condpdiff.condition import conditions
from condpdiff.condition_file import FILE, SHOWN, save_conditions
from condpdiff.domain import module
from condpdiff.errors import run
from condpdiff.files import new_directory, write_json
from condpdiff.params.condition import Condition
from condpdiff.params.section import section, tasks

OUT = Path("data/conditions")


def main() -> None:
    settings, description = section("condition", Condition), module("description")
    inputs = {name: description.inputs(Path("data/tasks", name), settings.kind) for name in tasks()}
    y = conditions(settings, inputs, module("encoder").load_encoder)
    with new_directory(OUT) as folder:
        save_conditions(folder / FILE, y)
        write_json(folder / SHOWN, {name: [description.shown(one) for one in each] for name, each in inputs.items()})


if __name__ == "__main__":
    run(main)
