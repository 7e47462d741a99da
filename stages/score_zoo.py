"""score-zoo TASK: the loss of every checkpoint, or of every so many-th, on the held-out rows."""

import sys
from pathlib import Path

from tqdm import tqdm

from condpdiff.common.errors import run
from condpdiff.common.files import read_rows
from condpdiff.common.settings import section
from condpdiff.domain import module
from condpdiff.evaluate.settings import Eval
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.performance import loss_rows, losses_of_all, rated
from condpdiff.zoo.settings import Performance

OUT = Path("data/performance")


def main() -> None:
    task, settings = sys.argv[1], section("performance", Performance)
    zoo = load_zoo(Path("data/zoo", task))
    rows = {"loss": loss_rows(read_rows(Path("data/tasks", task), "held_out"), settings)}
    tokens = section("eval", Eval).batch_tokens
    scorer = module("score").Scorer(Path("data/base"), zoo, module("task").load_task(task), rows, tokens)
    losses = {}
    for checkpoint in tqdm(rated(len(zoo.theta), settings.every), desc=f"score-zoo {task}", unit="checkpoint"):
        scorer.merge(zoo.theta[checkpoint])
        losses[checkpoint] = float(scorer.losses("loss").mean())
    OUT.mkdir(parents=True, exist_ok=True)
    losses_of_all(losses, len(zoo.theta)).to_csv(OUT / f"{task}.csv", index=False)


if __name__ == "__main__":
    run(main)
