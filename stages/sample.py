"""sample: noise -> z -> w -> theta, S a task, with the trajectories and doses that the figures need."""

from pathlib import Path

import torch

from condpdiff.common.errors import run
from condpdiff.common.files import new_directory, write_tensors
from condpdiff.common.settings import section, tasks
from condpdiff.diffusion import conditions as condition_file
from condpdiff.diffusion.conditions import load_conditions
from condpdiff.generate.generator import Generator, generate
from condpdiff.generate.settings import Sample
from condpdiff.zoo.normalized import load_frame

OUT = Path("data/samples")


def main() -> None:
    settings = section("sample", Sample)
    generator = Generator.load(Path("data"))
    y = load_conditions(Path("data/conditions") / condition_file.FILE, tasks())
    with new_directory(OUT) as folder:
        for q, task in enumerate(tasks()):
            random = torch.Generator().manual_seed(settings.seed * 1000 + q)
            frame = load_frame(Path("data/normalized"), task)
            write_tensors(folder / f"{task}.safetensors", generate(generator, frame, y[task], settings, random, task))


if __name__ == "__main__":
    run(main)
