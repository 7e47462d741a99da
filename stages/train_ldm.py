"""train-ldm: the latent diffusion model of all tasks, conditioned on y; then, if asked, on through the base model."""

from pathlib import Path

from condpdiff.autoencoder.models import load_latents
from condpdiff.common.files import new_directory
from condpdiff.common.hardware import rank, shared
from condpdiff.common.settings import section
from condpdiff.common.stage import run
from condpdiff.common.task import members
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.conditions import FILE, load_conditions
from condpdiff.diffusion.settings import Condition, Ldm
from condpdiff.domain import module
from condpdiff.generate.task_loss import through_base
from condpdiff.zoo.performance import load_performance
from condpdiff.zoo.settings import Collect

DATA = Path("data")


def main() -> None:
    settings, condition, names = section("ldm", Ldm), section("condition", Condition), members("train")
    z, y = load_latents(DATA / "latents", names), load_conditions(DATA / "conditions" / FILE, names)
    p = load_performance(DATA / "performance", {k: len(rows) for k, rows in z.items()}, settings.performance)
    process = diffusion.Process(settings.prediction, settings.residual)
    model, curve = diffusion.train(z, y, p, settings, condition.kind == "learnable")
    more = DATA, condition, section("collect", Collect), settings
    draw = module("unseen.fresh").Draws(*more) if "/" in names[0] else None  # names of families' members
    trained_on = through_base(model, process, DATA, draw, settings) if draw else None
    if rank() == 0:
        with new_directory(DATA / "ldm") as folder:
            diffusion.save(folder / diffusion.FILE, model, process)
            curve.to_csv(folder / "curve.csv", index=False)
            if trained_on:
                trained_on.save(folder)


if __name__ == "__main__":
    run(shared(main, lambda: "/" in members("train")[0]))
