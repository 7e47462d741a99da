"""score-zoo TASK: the loss of every checkpoint, or of every so many-th, on held-out rows; of a family no rows."""

import sys
from pathlib import Path

import pandas as pd

from condpdiff.common.files import read_rows, write_text
from condpdiff.common.settings import section
from condpdiff.common.stage import run
from condpdiff.domain import module
from condpdiff.evaluate.settings import Eval
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.performance import loss_rows, rate
from condpdiff.zoo.settings import Performance

DATA, OUT = Path("data"), Path("data/performance")


def main() -> None:
    name, settings = sys.argv[1], section("performance", Performance)
    task, losses = module("task").load_task(name), pd.DataFrame(columns=["checkpoint", "loss", "rated"])
    if task.members is None:  # of families `ldm.performance` is none: nobody would read it
        zoo = load_zoo(DATA / "zoo" / name)
        splits = {"loss": loss_rows(read_rows(DATA / "tasks" / name, "held_out"), settings)}
        scorer = module("score").Scorer(DATA / "base", zoo, task, splits, section("eval", Eval).batch_tokens)
        losses = rate(scorer, zoo.theta, settings.every, f"score-zoo {name}")
    write_text(OUT / f"{name}.csv", losses.to_csv(index=False))


if __name__ == "__main__":
    run(main)
