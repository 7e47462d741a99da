"""train-ldm: the latent diffusion model of all tasks, conditioned on y."""

from pathlib import Path

from condpdiff.autoencoder.latents import load_latents
from condpdiff.common.errors import run
from condpdiff.common.files import new_directory
from condpdiff.common.hardware import rank, shared
from condpdiff.common.settings import section, tasks
from condpdiff.diffusion import conditions as condition_file
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.conditions import load_conditions
from condpdiff.diffusion.settings import Condition, Ldm
from condpdiff.zoo.performance import load_performance

OUT = Path("data/ldm")


def main() -> None:
    settings = section("ldm", Ldm)
    z = load_latents(Path("data/latents"), tasks())
    y = load_conditions(Path("data/conditions") / condition_file.FILE, tasks())
    counts = {task: len(rows) for task, rows in z.items()}
    p = load_performance(Path("data/performance"), counts, settings.performance)
    learnable = section("condition", Condition).kind == "learnable"
    model, curve = diffusion.train(z, y, p, settings, learnable)
    if rank() > 0:
        return
    with new_directory(OUT) as folder:
        diffusion.save(folder / diffusion.FILE, model, diffusion.Process(settings.prediction, settings.schedule))
        curve.to_csv(folder / "curve.csv", index=False)


if __name__ == "__main__":
    run(shared(main))
