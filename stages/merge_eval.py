"""merge-eval TASK: merge every candidate into the base model, score it, and write the winner as a PEFT adapter."""

import sys
from pathlib import Path

import torch

from condpdiff import autoencoder
from condpdiff.adapter import export_adapter
from condpdiff.errors import run
from condpdiff.evaluation import build_arms, count_passes, score_arms, score_doses, splits, winner, write_geometry
from condpdiff.files import new_directory, read_json, read_tensors, write_json, write_tensors
from condpdiff.normalized import load_frame
from condpdiff.params.eval import Eval
from condpdiff.params.normalize import Normalize
from condpdiff.params.performance import Performance
from condpdiff.params.section import section
from condpdiff.params.task import load_task
from condpdiff.text.models import SOURCE
from condpdiff.text.rows import read_rows
from condpdiff.text.score import Scorer
from condpdiff.zoo import load_zoo

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

    names = ("train", "held_out", "validation")
    train, held_out, validation = (read_rows(Path("data/tasks", task), name) for name in names)
    rows = splits(held_out, validation, settings, section("performance", Performance))
    scorer = Scorer(BASE, zoo, load_task(task), rows, settings.batch_tokens)
    scores, predictions = score_arms(scorer, arms, zoo.theta, train["label"].to_numpy(), settings)
    doses = score_doses(scorer, zoo.theta, samples["doses"], samples["asked"], settings)
    best = winner(scores, "condpdiff")
    out = Path("data/adapters", task)
    with new_directory(Path("data/eval", task)) as folder, new_directory(out) as adapter:
        scores.to_csv(folder / "scores.csv", index=False)
        doses.to_csv(folder / "doses.csv", index=False)
        write_json(folder / "passes.json", count_passes(scorer, scores, doses, settings))
        tensors = {"predictions": predictions, "labels": scorer.labels["validation"]}
        write_tensors(
            folder / "predictions.safetensors", {k: torch.tensor(v, dtype=torch.float32) for k, v in tensors.items()}
        )
        write_geometry(folder, arms, zoo.theta)
        export_adapter(adapter, samples["theta"][best], zoo, read_json(BASE / SOURCE)["load"], str(out))


if __name__ == "__main__":
    run(main)
