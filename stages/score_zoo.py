"""score-zoo TASK: the loss of every checkpoint, or of every so many-th, on held-out rows; or of a family's members."""

import sys
from pathlib import Path

from condpdiff.common.files import read_rows, read_tensors, write_text
from condpdiff.common.settings import section
from condpdiff.common.stage import run
from condpdiff.domain import module
from condpdiff.evaluate.settings import Eval
from condpdiff.zoo.checkpoints import THETA, load_zoo
from condpdiff.zoo.many import rate_many
from condpdiff.zoo.performance import loss_rows, rate
from condpdiff.zoo.settings import Collect, Performance

DATA, OUT = Path("data"), Path("data/performance")


def main() -> None:
    name, settings = sys.argv[1], section("performance", Performance)
    task, rows, folder = module("task").load_task(name), DATA / "tasks" / name, DATA / "zoo" / name
    if task.members is None:
        zoo, splits = load_zoo(folder), {"loss": loss_rows(read_rows(rows, "held_out"), settings)}
        scorer = module("score").Scorer(DATA / "base", zoo, task, splits, section("eval", Eval).batch_tokens)
        losses = rate(scorer, zoo.theta, settings.every, f"score-zoo {name}")
    else:
        family = module("families.losses").Family(task, section("collect", Collect), rows, DATA / "base")
        losses = rate_many(family, read_tensors(folder / THETA)["theta"], task.finetune.batch_size)
    write_text(OUT / f"{name}.csv", losses.to_csv(index=False))


if __name__ == "__main__":
    run(main)
