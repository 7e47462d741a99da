"""sample: noise -> z -> w -> theta, S a task, with the denoising trajectories that the figures need."""

from pathlib import Path

import torch

from condpdiff import autoencoder, condition_file, diffusion
from condpdiff.condition_file import load_conditions
from condpdiff.errors import run
from condpdiff.files import new_directory, write_tensors
from condpdiff.generate import generate
from condpdiff.latents import load_scale
from condpdiff.normalized import load_frame
from condpdiff.params.sample import Sample
from condpdiff.params.section import section, tasks

OUT = Path("data/samples")


def main() -> None:
    settings = section("sample", Sample)
    model, prediction = diffusion.load(Path("data/ldm") / diffusion.FILE)
    decoder = autoencoder.load(Path("data/autoencoder") / autoencoder.FILE)
    scale = load_scale(Path("data/latents"))
    y = load_conditions(Path("data/conditions") / condition_file.FILE, tasks())
    with new_directory(OUT) as folder:
        for q, task in enumerate(tasks()):
            generator = torch.Generator().manual_seed(settings.seed * 1000 + q)
            frame = load_frame(Path("data/normalized"), task)
            theta, path = generate(model, prediction, decoder, scale, frame, y[task], settings, generator, what=task)
            write_tensors(folder / f"{task}.safetensors", {"theta": theta, "trajectories": path})


if __name__ == "__main__":
    run(main)
