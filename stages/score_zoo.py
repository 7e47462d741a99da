"""score-zoo TASK: the loss of every checkpoint on the held-out rows."""

import sys
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from condpdiff.common.errors import run
from condpdiff.common.settings import section
from condpdiff.domain import module
from condpdiff.evaluate.settings import Eval
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.performance import loss_rows
from condpdiff.zoo.settings import Performance

OUT = Path("data/performance")


def main() -> None:
    task = sys.argv[1]
    zoo = load_zoo(Path("data/zoo", task))
    held_out = module("rows").read_rows(Path("data/tasks", task), "held_out")
    rows = {"loss": loss_rows(held_out, section("performance", Performance))}
    tokens = section("eval", Eval).batch_tokens
    scorer = module("score").Scorer(Path("data/base"), zoo, module("task").load_task(task), rows, tokens)
    losses = []
    for theta in tqdm(zoo.theta, desc=f"score-zoo {task}", unit="checkpoint"):
        scorer.merge(theta)
        losses.append(float(scorer.losses("loss").mean()))
    OUT.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"checkpoint": range(len(losses)), "loss": losses}).to_csv(OUT / f"{task}.csv", index=False)


if __name__ == "__main__":
    run(main)
