"""merge-eval TASK: merge every candidate into the base model, score it, and write the winner as a PEFT adapter."""

import sys
from pathlib import Path

import torch

from condpdiff.autoencoder import models as autoencoder
from condpdiff.common.errors import run
from condpdiff.common.files import new_directory, read_tensors
from condpdiff.common.settings import section
from condpdiff.domain import module
from condpdiff.evaluate.arms import build_arms, winner, write_geometry
from condpdiff.evaluate.settings import Eval
from condpdiff.zoo.adapters import export_adapter, loads_as
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.normalized import load_frame
from condpdiff.zoo.settings import Normalize, Performance

BASE = Path("data/base")


def main() -> None:
    task = sys.argv[1]
    settings = section("eval", Eval)
    zoo = load_zoo(Path("data/zoo", task), section("normalize", Normalize).n_checkpoints)
    samples = read_tensors(Path("data/samples", f"{task}.safetensors"))
    generator = torch.Generator().manual_seed(settings.seed)
    decoder = autoencoder.load(Path("data/autoencoder") / autoencoder.FILE)
    frame = load_frame(Path("data/normalized"), task)
    arms = build_arms(zoo.theta, samples["theta"], frame, decoder, settings, generator)

    out = Path("data/adapters", task)
    with new_directory(Path("data/eval", task)) as folder, new_directory(out) as adapter:
        scores = module("evaluation").evaluate(
            module("task").load_task(task),
            zoo,
            arms,
            samples,
            settings,
            section("performance", Performance),
            data=Path("data/tasks", task),
            base=BASE,
            out=folder,
        )
        write_geometry(folder, arms, zoo.theta)
        best = samples["theta"][winner(scores, "condpdiff")]
        models = module("models")
        export_adapter(adapter, best, zoo, loads_as(BASE), str(out), models.TASK_TYPE, models.CARD)


if __name__ == "__main__":
    run(main)
