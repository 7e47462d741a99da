"""train-ae: the autoencoder of all tasks' normalised checkpoints."""

from pathlib import Path

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.settings import Autoencoder
from condpdiff.autoencoder.train import reconstruction_error, train
from condpdiff.common.files import new_directory, write_json
from condpdiff.common.hardware import rank, shared
from condpdiff.common.matrices import Joined
from condpdiff.common.settings import section
from condpdiff.common.stage import run
from condpdiff.common.task import members
from condpdiff.zoo.normalized import load_rows

NORMALIZED = Path("data/normalized")
OUT, MEAN = Path("data/autoencoder"), 0.9


def main() -> None:
    settings = section("ae", Autoencoder)
    w = load_rows(NORMALIZED, members("train"))
    model, config, curve = train(Joined(list(w.values())), settings)
    if rank() > 0:
        return
    errors = {task: round(reconstruction_error(model, rows), 6) for task, rows in w.items()}
    print("reconstruction error (1 = the variance of w):", errors)
    for task, error in errors.items():
        if error > MEAN:
            says = f"it knows little more than the mean ({error:.2f} of 1); raise ae.steps or ae.latent_length"
            print(f"warning: train-ae: {task}: {says}", flush=True)
    with new_directory(OUT) as folder:
        autoencoder.save(folder / autoencoder.FILE, model, config)
        curve.to_csv(folder / "curve.csv", index=False)
        write_json(folder / "reconstruction.json", errors)


if __name__ == "__main__":
    run(shared(main))
