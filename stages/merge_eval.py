"""merge-eval TASK: merge every candidate into the base model, score it, and write the winner as a PEFT adapter."""

import sys
from pathlib import Path

from condpdiff.common.errors import run
from condpdiff.common.files import new_directory, read_rows, read_tensors
from condpdiff.common.pretrained import loads_as
from condpdiff.common.settings import section
from condpdiff.domain import module
from condpdiff.evaluate.arms import load_arms, winner, write_geometry
from condpdiff.evaluate.candidates import evaluate, splits
from condpdiff.evaluate.settings import Eval
from condpdiff.zoo.adapters import export_adapter
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.settings import Normalize, Performance

DATA = Path("data")


def main() -> None:
    name, settings = sys.argv[1], section("eval", Eval)
    data, base, out = DATA / "tasks" / name, DATA / "base", DATA / "adapters" / name
    zoo = load_zoo(DATA / "zoo" / name, section("normalize", Normalize).n_checkpoints)
    samples = read_tensors(DATA / "samples" / f"{name}.safetensors")
    arms = load_arms(DATA, name, zoo, samples["theta"], settings)
    rows = splits(data, settings, section("performance", Performance))
    scorer = module("score").Scorer(base, zoo, module("task").load_task(name), rows, settings.batch_tokens)
    models = module("models")
    with new_directory(DATA / "eval" / name) as folder, new_directory(out) as adapter:
        scores = evaluate(scorer, arms, zoo.theta, samples, read_rows(data, "train"), settings, folder)
        write_geometry(folder, arms, zoo.theta)
        best = samples["theta"][winner(scores, "condpdiff")]
        export_adapter(adapter, best, zoo, loads_as(base), str(out), models.TASK_TYPE, models.CARD)


if __name__ == "__main__":
    run(main)
