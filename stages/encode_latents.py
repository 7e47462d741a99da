"""encode-latents: z = E(w) of every checkpoint, and the scale of z."""

from pathlib import Path

from condpdiff import autoencoder
from condpdiff.errors import run
from condpdiff.files import new_directory
from condpdiff.latents import save_latents
from condpdiff.normalized import load_rows
from condpdiff.params.section import tasks

OUT = Path("data/latents")


def main() -> None:
    model = autoencoder.load(Path("data/autoencoder") / autoencoder.FILE)
    w = load_rows(Path("data/normalized"), tasks())
    with new_directory(OUT) as folder:
        save_latents(folder, {task: autoencoder.encode_all(model, rows) for task, rows in w.items()})


if __name__ == "__main__":
    run(main)
