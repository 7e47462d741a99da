"""sample: noise -> z -> w -> theta, S a task, with the trajectories and doses that the figures need."""

from functools import partial
from pathlib import Path

import torch

from condpdiff.common.files import new_directory, write_tensors
from condpdiff.common.settings import section
from condpdiff.common.stage import once, run
from condpdiff.common.task import grouped
from condpdiff.diffusion import conditions as condition_file
from condpdiff.diffusion.conditions import load_conditions
from condpdiff.generate.generator import Generator, generate
from condpdiff.generate.settings import Sample
from condpdiff.zoo.normalized import load_frame

OUT = Path("data/samples")


def main() -> None:
    settings = section("sample", Sample)
    generator = Generator.load(Path("data"))
    names = grouped("unseen", "tuning")
    y = load_conditions(Path("data/conditions") / condition_file.FILE, [n for each in names.values() for n in each])
    numbers = {name: number for number, name in enumerate(y)}
    with new_directory(OUT) as folder:
        for task, each in names.items():
            made = []
            for name in each:
                random = torch.Generator().manual_seed(settings.seed * 1000 + numbers[name])
                frame = load_frame(Path("data/normalized"), name)
                made.append(once(name, partial(generate, generator, frame, y[name], settings, random, name)))
            # Of a family one file, whose tensors have an axis of members in front.
            found = made[0] if each == [task] else {key: torch.stack([m[key] for m in made]) for key in made[0]}
            write_tensors(folder / f"{task}.safetensors", found)


if __name__ == "__main__":
    run(main)
