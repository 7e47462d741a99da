"""encode-latents: z = E(w) of every checkpoint, and the scale of z."""

from pathlib import Path

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.models import save_latents
from condpdiff.common.files import new_directory
from condpdiff.common.stage import run
from condpdiff.common.task import members
from condpdiff.zoo.normalized import load_rows

OUT = Path("data/latents")


def main() -> None:
    model = autoencoder.load(Path("data/autoencoder") / autoencoder.FILE)
    w = load_rows(Path("data/normalized"), members("train"))
    with new_directory(OUT) as folder:
        save_latents(folder, {task: autoencoder.encode_all(model, rows) for task, rows in w.items()})


if __name__ == "__main__":
    run(main)
