"""What racing saves and what it picks: `python -m benchmarks.racing [TASK ...]`.

Selects every arm's candidate of the data that lie in data/ by both rules of `eval.select`, on the same candidates and
rows, and prints what each picked and how many rows went through the model. Scores of a full run are read from
data/eval/<task>/scores.csv, where its candidates are the same; if there are none, they are computed.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from condpdiff.autoencoder import models as autoencoder
from condpdiff.common.errors import run
from condpdiff.common.files import read_tensors
from condpdiff.common.settings import section, tasks
from condpdiff.evaluate.arms import Arm, build_arms, winner
from condpdiff.evaluate.settings import Eval
from condpdiff.text.evaluation import score_arms, splits
from condpdiff.text.rows import read_rows
from condpdiff.text.score import Scorer
from condpdiff.text.task import load_task
from condpdiff.zoo.checkpoints import Zoo, load_zoo
from condpdiff.zoo.normalized import load_frame
from condpdiff.zoo.settings import Normalize, Performance

DATA = Path("data")
HEAD = "task|arm|candidates|full picks|racing picks|full validation|racing validation|full passes|racing passes|saved"


@dataclass(frozen=True)
class Row:
    """One arm of one task, selected by both rules; or the sum over arms."""

    task: str
    arm: str
    candidates: int
    winners: tuple[str, str]  # candidate that full, and racing, picks
    scores: tuple[float, float]  # their validation scores in percent
    passes: tuple[int, int]  # rows through the model

    def line(self) -> str:
        full, raced = self.passes
        cells = [self.task, self.arm, str(self.candidates), *self.winners, *(f"{x:.2f}" for x in self.scores)]
        return "| " + " | ".join([*cells, f"{full:,}", f"{raced:,}", f"{1 - raced / full:.0%}"]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help="of params.yaml; all of them if none is named")
    print(f"| {HEAD.replace('|', ' | ')} |\n" + "|---" * (HEAD.count("|") + 1) + "|", flush=True)
    for task in parser.parse_args().tasks or tasks():
        rows = list(compare(task))
        for row in [*rows, total(rows)]:
            print(row.line(), flush=True)


def compare(task: str) -> Iterator[Row]:
    """Both rules on one task's arms."""
    settings = section("eval", Eval).model_copy(update={"select": "racing"})
    zoo = load_zoo(DATA / "zoo" / task, section("normalize", Normalize).n_checkpoints)
    arms = arms_of(task, zoo, settings)
    names = ("train", "held_out", "validation")
    train, held_out, validation = (read_rows(DATA / "tasks" / task, name) for name in names)
    rows = splits(held_out, validation, settings, section("performance", Performance))
    scorer = Scorer(DATA / "base", zoo, load_task(task), rows, settings.batch_tokens)

    def scored(rule: str) -> pd.DataFrame:
        labels = train["label"].to_numpy()
        return score_arms(scorer, arms, zoo.theta, labels, settings.model_copy(update={"select": rule}))[0]

    raced = scored("racing")
    full = stored(DATA / "eval" / task / "scores.csv", raced)
    if full is None:
        full = scored("full")
    for name in arms:
        yield both(task, name, full, raced, (len(rows["select"]), len(validation)))


def arms_of(task: str, zoo: Zoo, settings: Eval) -> dict[str, Arm]:
    """The arms that merge-eval builds."""
    samples = read_tensors(DATA / "samples" / f"{task}.safetensors")["theta"]
    decoder = autoencoder.load(DATA / "autoencoder" / autoencoder.FILE)
    frame = load_frame(DATA / "normalized", task)
    return build_arms(zoo.theta, samples, frame, decoder, settings, torch.Generator().manual_seed(settings.seed))


def stored(path: Path, raced: pd.DataFrame) -> pd.DataFrame | None:
    """Scores that a full merge-eval left of the same candidates, told by their distances; None if there are none."""
    if not path.is_file():
        return None
    scores = pd.read_csv(path)
    same = scores["arm"].tolist() == raced["arm"].tolist() and np.allclose(
        scores["distance"], raced["distance"], rtol=1e-3, equal_nan=True
    )
    return scores if same and scores[["select", "validation"]].notna().all(axis=None) else None


def both(task: str, arm: str, full: pd.DataFrame, raced: pd.DataFrame, rows: tuple[int, int]) -> Row:
    """One arm's row; `rows`: how many there are of select and of validation."""
    tables = [frame[frame["arm"] == arm].reset_index(drop=True) for frame in (full, raced)]
    picks = [winner(table, arm) for table in tables]
    scores = (float(tables[0]["validation"][picks[0]]), float(tables[1]["validation"][picks[1]]))
    count = len(tables[0])
    passes = (count * sum(rows), int(tables[1]["rows"].sum()) + rows[1])
    return Row(task, arm, count, (str(picks[0]), str(picks[1])), scores, passes)


def total(rows: list[Row]) -> Row:
    """Sum over arms; as winners how often the rules agree, as scores their means."""
    agree = sum(row.winners[0] == row.winners[1] for row in rows)
    scores = np.mean([row.scores for row in rows], axis=0)
    passes = np.sum([row.passes for row in rows], axis=0)
    count = sum(row.candidates for row in rows)
    words = (f"{agree} of {len(rows)}", "agree")
    return Row(rows[0].task, "all", count, words, (scores[0], scores[1]), (int(passes[0]), int(passes[1])))


if __name__ == "__main__":
    run(main)
