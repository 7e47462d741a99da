"""train-ldm: the latent diffusion model of all tasks, conditioned on y; then, if asked, on through the base model."""

from pathlib import Path

from condpdiff.autoencoder.latents import load_latents
from condpdiff.common.errors import run
from condpdiff.common.files import new_directory
from condpdiff.common.hardware import rank, shared
from condpdiff.common.settings import section
from condpdiff.common.task import members
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.conditions import FILE, load_conditions
from condpdiff.diffusion.settings import Condition, Ldm
from condpdiff.domain import module
from condpdiff.generate.task_loss import through_base
from condpdiff.zoo.performance import load_performance
from condpdiff.zoo.settings import Collect

DATA, OUT = Path("data"), Path("data/ldm")


def main() -> None:
    settings, condition, names = section("ldm", Ldm), section("condition", Condition), members("train")
    z = load_latents(DATA / "latents", names)
    y = load_conditions(DATA / "conditions" / FILE, names)
    p = load_performance(DATA / "performance", {name: len(rows) for name, rows in z.items()}, settings.performance)
    process = diffusion.Process(settings.prediction, settings.residual)
    model, curve = diffusion.train(z, y, p, settings, condition.kind == "learnable")
    collect, of_families = section("collect", Collect), "/" in names[0]
    draw = module("unseen.fresh").draws(DATA, condition, collect, settings) if of_families else None
    trained_on = through_base(model, process, DATA, draw, settings) if draw else None
    if rank() == 0:
        with new_directory(OUT) as folder:
            diffusion.save(folder / diffusion.FILE, model, process)
            curve.to_csv(folder / "curve.csv", index=False)
            if trained_on:
                trained_on.save(folder)


if __name__ == "__main__":
    run(shared(main))
