"""normalize: the last N checkpoints of every task, the chosen layers, z-scored."""

from pathlib import Path

from condpdiff.common.files import new_directory
from condpdiff.common.settings import section, tasks
from condpdiff.common.stage import run
from condpdiff.common.task import members
from condpdiff.zoo.checkpoints import open_zoos
from condpdiff.zoo.normalized import Frame, moments_of, save_frame, save_rows, statistics_of
from condpdiff.zoo.settings import Normalize

ZOO = Path("data/zoo")
OUT = Path("data/normalized")


def main() -> None:
    settings = section("normalize", Normalize)
    asked = set(tasks())
    zoos, layout = open_zoos(ZOO, members("train"), settings.n_checkpoints)
    chosen, positions = layout.select_layers(None if settings.layers == "all" else settings.layers)
    moments = moments_of(zoos)
    statistics = statistics_of(settings.method, {task: m.at(positions) for task, m in moments.items()}, chosen)
    if settings.n_checkpoints == 1 and settings.method == "task":
        print("N = 1 has no variance: w is 0 everywhere, and every sample decodes to the one checkpoint")
    with new_directory(OUT) as folder:
        chosen.save(folder)
        for task, theta in zoos.items():
            frame = Frame(statistics[task], moments[task].mean.float(), positions)
            save_rows(folder / task, theta, frame)
            if task in asked:
                save_frame(folder / task, frame)
        for family in asked - set(zoos):  # a shared method gives all members of all families one frame
            (folder / family).mkdir(exist_ok=True)
            save_frame(folder / family, frame)


if __name__ == "__main__":
    run(main)
