"""normalize: the last N checkpoints of every task, the chosen layers, z-scored."""

from pathlib import Path

from condpdiff.common.errors import UserError, run
from condpdiff.common.files import new_directory
from condpdiff.common.settings import section, tasks
from condpdiff.zoo.checkpoints import open_zoo
from condpdiff.zoo.normalization import Moments, statistics_of
from condpdiff.zoo.normalized import Frame, save_task
from condpdiff.zoo.settings import Normalize

ZOO = Path("data/zoo")
OUT = Path("data/normalized")


def main() -> None:
    settings = section("normalize", Normalize)
    zoos = {task: open_zoo(ZOO / task, settings.n_checkpoints) for task in tasks()}
    _, layout = next(iter(zoos.values()))
    for task, (_, other) in zoos.items():
        if other != layout:
            raise UserError(
                f"{ZOO / task}/layout.json: found another layout than {ZOO / tasks()[0]}'s; same base and rank?"
            )

    chosen, positions = layout.select_layers(None if settings.layers == "all" else settings.layers)
    moments = {task: Moments.of(theta.parts()) for task, (theta, _) in zoos.items()}
    statistics = statistics_of(settings.method, {task: m.at(positions) for task, m in moments.items()}, chosen)
    if settings.n_checkpoints == 1 and settings.method == "task":
        print("N = 1 has no variance: w is 0 everywhere, and every sample decodes to the one checkpoint")
    with new_directory(OUT) as folder:
        chosen.save(folder)
        for task, (theta, _) in zoos.items():
            save_task(folder / task, theta, Frame(statistics[task], moments[task].mean.float(), positions))


if __name__ == "__main__":
    run(main)
