"""A scorer of text on random stand-ins, for what a domain leaves to the scoring of every one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from condpdiff.common.settings import parse
from condpdiff.common.task import Task
from condpdiff.evaluate.candidates import splits
from condpdiff.evaluate.settings import Eval
from condpdiff.text.score import Scorer
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.settings import Performance
from tests.stand_ins import make_rows, make_task, make_zoo

KEYS = {"candidates": 4, "extra_candidates": 2, "select_rows": 10, "pca_axes": 4, "batch_tokens": 128}
SETTINGS = parse(Eval, KEYS, "params.yaml", "eval")
RACING = SETTINGS.model_copy(update={"select": "racing"})


@dataclass(frozen=True)
class Stand:
    """One task: 12 training, 16 held-out and 4 validation rows, and a zoo of 8 checkpoints."""

    base: Path
    data: Path
    zoo: Zoo
    task: Task

    def scorer(self, settings: Eval, zoo: Zoo | None = None) -> Any:
        """On the rows of `splits`, six of which rate checkpoints."""
        rows = splits(self.data, settings, Performance(rows=6))
        return Scorer(self.base, zoo or self.zoo, self.task, rows, settings.batch_tokens)

    @property
    def train(self) -> pd.DataFrame:
        return pd.read_parquet(self.data / "train.parquet")


@pytest.fixture(scope="module")
def stand(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Stand:
    data = tmp_path_factory.mktemp("rows")
    for seed, (split, count) in enumerate({"train": 12, "held_out": 16, "validation": 4}.items()):
        make_rows(count, seed).to_parquet(data / f"{split}.parquet", index=False)
    return Stand(base("bert"), data, make_zoo(base("bert"), count=8)[0], make_task())


@pytest.fixture(scope="module")
def scorers(stand: Stand) -> dict[str, Any]:
    return {settings.select: stand.scorer(settings) for settings in (SETTINGS, RACING)}


def bare(scorer: Any) -> Any:
    """Without a LoRA, and no row counted."""
    scorer.merge(None)
    scorer.passes.clear()
    return scorer


@pytest.fixture
def scorer(scorers: dict[str, Any]) -> Any:
    return bare(scorers["full"])


@pytest.fixture
def racing_scorer(scorers: dict[str, Any]) -> Any:
    return bare(scorers["racing"])
