"""merge-eval TASK: merge every candidate into the base model, score it, and write the winner as a PEFT adapter."""

import sys
from pathlib import Path

from condpdiff.common.files import new_directory
from condpdiff.common.pretrained import loads_as
from condpdiff.common.settings import section
from condpdiff.common.stage import run
from condpdiff.diffusion.settings import Condition
from condpdiff.domain import module
from condpdiff.evaluate.candidates import evaluate_task
from condpdiff.evaluate.family import Run
from condpdiff.evaluate.settings import Eval
from condpdiff.generate.settings import Sample
from condpdiff.zoo.adapters import export_adapter
from condpdiff.zoo.settings import Collect, Normalize, Performance

DATA = Path("data")


def main() -> None:
    name, settings = sys.argv[1], section("eval", Eval)
    task, out = module("task").load_task(name), DATA / "adapters" / name
    with new_directory(DATA / "eval" / name) as folder, new_directory(out) as adapter:
        n = section("normalize", Normalize).n_checkpoints
        if task.members is None:
            performance = section("performance", Performance)
            scorer, labels = module("score").Scorer, getattr(task.data, "labels", None)
            best, zoo = evaluate_task(DATA, name, task, scorer, n, settings, performance, folder)
            export_adapter(adapter, best, zoo, loads_as(DATA / "base"), str(out), labels)
        else:
            of = section("condition", Condition), section("sample", Sample), section("collect", Collect)
            module("unseen.evaluate").Evaluation(name, task, DATA, Run(n, settings, *of)).evaluate(folder, adapter)


if __name__ == "__main__":
    run(main)
