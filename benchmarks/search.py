"""Search a task's fine-tuning rates: `python -m benchmarks.search movies --lr 5e-4 1e-3 2e-3`.

Fine-tunes with each rate as finetune-collect would (rows, base model and steps of params.yaml and of the task file),
and prints what the pipeline will call no_lora, original and soup. Scores are of the validation rows.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from condpdiff.common.axes import evenly_spaced
from condpdiff.common.settings import section
from condpdiff.evaluate import controls
from condpdiff.evaluate.settings import Eval
from condpdiff.text.finetune import finetune
from condpdiff.text.rows import read_rows
from condpdiff.text.score import Scorer
from condpdiff.text.task import load_task
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.settings import Collect

BASE = Path("data/base")
CHECKPOINTS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--lr", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3])
    parser.add_argument("--window", type=int, default=150, help="checkpoints collected")
    arguments = parser.parse_args()
    collect = section("collect", Collect).model_copy(update={"max_checkpoints": arguments.window, "runs": 1})
    print(
        "| task | lr | no LoRA | original mean | original std | original best | soup |\n|---|---|---|---|---|---|---|"
    )
    for name in arguments.tasks:
        for lr in arguments.lr:
            print(
                f"| {name} | {lr:g} | " + " | ".join(f"{x:.1f}" for x in try_rate(name, lr, collect)) + " |", flush=True
            )


def try_rate(name: str, lr: float, collect: Collect) -> list[float]:
    """Validation scores of no LoRA, of `CHECKPOINTS` checkpoints (mean, std, best), and of the soup."""
    task = load_task(name)
    task = task.model_copy(update={"finetune": task.finetune.model_copy(update={"lr": lr})})
    with tempfile.TemporaryDirectory() as folder:
        zoo_folder = Path(folder) / name
        with contextlib.redirect_stdout(sys.stderr):  # stdout is the table's
            finetune(name, task, collect, Path("data/tasks", name), BASE, zoo_folder)
        zoo = load_zoo(zoo_folder, collect.max_checkpoints)
    rows = {"validation": read_rows(Path("data/tasks", name), "validation")}
    scorer = Scorer(BASE, zoo, task, rows, section("eval", Eval).batch_tokens)

    def score() -> float:
        return scorer.score("validation", scorer.predict("validation"))[task.metrics[0]]

    scorer.merge(None)
    none = score()
    found = []
    for theta in zoo.theta[evenly_spaced(len(zoo.theta), CHECKPOINTS)]:
        scorer.merge(theta)
        found.append(score())
    scorer.merge(controls.soup(zoo.theta)[0])
    mean = sum(found) / len(found)
    std = (sum((x - mean) ** 2 for x in found) / len(found)) ** 0.5
    return [none, mean, std, max(found), score()]


if __name__ == "__main__":
    main()
