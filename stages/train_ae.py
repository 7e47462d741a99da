"""train-ae: the autoencoder of all tasks' normalised checkpoints."""

from pathlib import Path

import torch

from condpdiff import autoencoder
from condpdiff.errors import run
from condpdiff.files import new_directory, write_json
from condpdiff.normalized import load_w
from condpdiff.params.ae import Autoencoder
from condpdiff.params.section import section, tasks
from condpdiff.train_autoencoder import reconstruction_error, train

OUT = Path("data/autoencoder")


def main() -> None:
    settings = section("ae", Autoencoder)
    w = load_w(Path("data/normalized"), tasks())
    model, config, curve = train(torch.cat(list(w.values())), settings)
    errors = {task: round(reconstruction_error(model, w[task]), 6) for task in w}
    print("reconstruction error (1 = the variance of w):", errors)
    with new_directory(OUT) as folder:
        autoencoder.save(folder / autoencoder.FILE, model, config)
        curve.to_csv(folder / "curve.csv", index=False)
        write_json(folder / "reconstruction.json", errors)


if __name__ == "__main__":
    run(main)
