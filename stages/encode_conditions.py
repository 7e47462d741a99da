"""encode-conditions: y of every task, by the condition's kind."""

from pathlib import Path

from condpdiff.common.errors import run
from condpdiff.common.files import new_directory, write_json
from condpdiff.common.settings import section, tasks
from condpdiff.diffusion.conditions import FILE, SHOWN, conditions, save_conditions
from condpdiff.diffusion.settings import Condition
from condpdiff.domain import module

OUT = Path("data/conditions")


def main() -> None:
    settings, description = section("condition", Condition), module("conditions")
    inputs = {name: description.inputs(Path("data/tasks", name), settings.kind) for name in tasks()}
    y = conditions(settings, inputs, module("encoder").load_encoder)
    with new_directory(OUT) as folder:
        save_conditions(folder / FILE, y)
        write_json(folder / SHOWN, {name: [description.shown(one) for one in each] for name, each in inputs.items()})


if __name__ == "__main__":
    run(main)
