"""encode-conditions: y of every task, by the condition's kind."""

from pathlib import Path

import torch

from condpdiff.common.files import new_directory, write_json, write_tensors
from condpdiff.common.settings import section
from condpdiff.common.stage import run
from condpdiff.common.task import members
from condpdiff.diffusion.conditions import FILE, PROJECTION, SHOWN, Projection, conditions
from condpdiff.diffusion.settings import Condition
from condpdiff.domain import module

OUT = Path("data/conditions")


def main() -> None:
    settings, description = section("condition", Condition), module("conditions")
    names = members("train", "tuning", "unseen")
    inputs = {name: description.inputs(Path("data/tasks", name), settings.kind) for name in names}
    y = conditions(settings, inputs, module("encoder").load_encoder)
    with new_directory(OUT) as folder:
        if settings.axes is not None:
            trained = torch.cat([y[name] for name in members("train")])
            projection = Projection.fit(trained, settings.axes, module("encoder").weights(settings))
            write_tensors(folder / PROJECTION, vars(projection))
            y = {name: projection(each) for name, each in y.items()}
        write_tensors(folder / FILE, y)
        write_json(folder / SHOWN, {name: [description.shown(one) for one in each] for name, each in inputs.items()})


if __name__ == "__main__":
    run(main)
