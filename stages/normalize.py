"""normalize: the last N checkpoints of every task, the chosen layers, z-scored."""

from pathlib import Path

from condpdiff.errors import UserError, run
from condpdiff.files import new_directory
from condpdiff.normalization import normalise, statistics_of
from condpdiff.normalized import Frame, save_task
from condpdiff.params.normalize import Normalize
from condpdiff.params.section import section, tasks
from condpdiff.zoo import load_zoo

ZOO = Path("data/zoo")
OUT = Path("data/normalized")


def main() -> None:
    settings = section("normalize", Normalize)
    zoos = {task: load_zoo(ZOO / task, settings.n_checkpoints) for task in tasks()}
    layout = next(iter(zoos.values())).layout
    for task, zoo in zoos.items():
        if zoo.layout != layout:
            raise UserError(
                f"{ZOO / task}/layout.json: found another layout than {ZOO / tasks()[0]}'s; same base and rank?"
            )

    chosen, positions = layout.select_layers(None if settings.layers == "all" else settings.layers)
    theta = {task: zoo.theta[:, positions] for task, zoo in zoos.items()}
    statistics = statistics_of(settings.method, theta, chosen)
    if settings.n_checkpoints == 1 and settings.method == "task":
        print("N = 1 has no variance: w is 0 everywhere, and every sample decodes to the one checkpoint")
    with new_directory(OUT) as folder:
        chosen.save(folder)
        for task, zoo in zoos.items():
            frame = Frame(statistics[task], zoo.theta.double().mean(0).float(), positions)
            save_task(folder / task, normalise(theta[task], statistics[task]), frame)


if __name__ == "__main__":
    run(main)
