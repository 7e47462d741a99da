"""train-ae: the autoencoder of all tasks' normalised checkpoints."""

from pathlib import Path

from condpdiff import autoencoder
from condpdiff.delta_w import UpdateLoss
from condpdiff.errors import run
from condpdiff.files import new_directory, write_json
from condpdiff.hardware import rank, shared
from condpdiff.layout import Layout
from condpdiff.normalized import load_frame, load_rows
from condpdiff.params.ae import Autoencoder
from condpdiff.params.section import section, tasks
from condpdiff.rows import Joined
from condpdiff.train_autoencoder import reconstruction_error, train

NORMALIZED = Path("data/normalized")
OUT = Path("data/autoencoder")


def main() -> None:
    settings = section("ae", Autoencoder)
    w = load_rows(NORMALIZED, tasks())
    layout = Layout.load(NORMALIZED)
    updates = None
    if settings.delta_w:
        statistics = [load_frame(NORMALIZED, task).statistics for task in w]
        updates = UpdateLoss(layout, statistics, [rows.shape[0] for rows in w.values()], settings.delta_w)
    model, config, curve = train(Joined(list(w.values())), settings, layout, updates)
    if rank() > 0:
        return
    errors = {task: round(reconstruction_error(model, rows), 6) for task, rows in w.items()}
    print("reconstruction error (1 = the variance of w):", errors)
    with new_directory(OUT) as folder:
        autoencoder.save(folder / autoencoder.FILE, model, config)
        curve.to_csv(folder / "curve.csv", index=False)
        write_json(folder / "reconstruction.json", errors)


if __name__ == "__main__":
    run(shared(main))
