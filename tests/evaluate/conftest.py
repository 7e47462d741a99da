"""A scorer of each domain on random stand-ins, for what the domains do alike."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from condpdiff.common.settings import parse
from condpdiff.common.task import Task
from condpdiff.evaluate.candidates import splits
from condpdiff.evaluate.scorer import Scorer
from condpdiff.evaluate.settings import Eval
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.settings import Performance

KEYS = {
    "candidates": 4, "extra_candidates": 2, "select_rows": 10, "pca_axes": 4, "batch_tokens": 128, "images": 5,
    "image_steps": 2,
}  # fmt: skip
SETTINGS = parse(Eval, KEYS, "params.yaml", "eval")
RACING = SETTINGS.model_copy(update={"select": "racing"})


class Brightness:
    """In place of a style's judge: how much darker images are than white; no network."""

    def distances(self, found: np.ndarray) -> dict[str, float]:
        return {"fd_lite0": 255 - float(found.mean())}


@dataclass(frozen=True)
class Stand:
    """One task of a domain: 12 training, 16 held-out and 4 validation rows, and a zoo of 8 checkpoints."""

    base: Path
    data: Path
    zoo: Zoo
    task: Task
    make: Callable[..., Scorer]
    other: tuple[str, str]
    """A module that is not linear, and its class."""

    def scorer(self, settings: Eval, zoo: Zoo | None = None) -> Any:
        """On the rows of `splits`, six of which rate checkpoints."""
        rows = splits(self.data, settings, Performance(rows=6))
        found = self.make(self.base, zoo or self.zoo, self.task, rows, settings.batch_tokens)
        if found.reference == "floor":
            found.__dict__["judge"] = Brightness()
        return found

    @property
    def train(self) -> pd.DataFrame:
        return pd.read_parquet(self.data / "train.parquet")


def save(folder: Path, make: Callable[[int, int], pd.DataFrame]) -> Path:
    for seed, (split, count) in enumerate({"train": 12, "held_out": 16, "validation": 4}.items()):
        make(count, seed).to_parquet(folder / f"{split}.parquet", index=False)
    return folder


@pytest.fixture(scope="module", params=["text", "style"])
def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stand:
    data = tmp_path_factory.mktemp("rows")
    if request.param == "text":
        from condpdiff.text.score import Scorer as TextScorer
        from tests.stand_ins import make_rows, make_task, make_zoo

        base = request.getfixturevalue("base")("bert")
        other = ("bert.embeddings.word_embeddings", "Embedding")
        return Stand(base, save(data, make_rows), make_zoo(base, "bert", count=8)[0], make_task(), TextScorer, other)
    from condpdiff.style.score import Scorer as StyleScorer

    from tests.style.stand_ins_style import make_style_rows, make_style_task, make_style_zoo, save_style_base

    base, other = save_style_base(tmp_path_factory.mktemp("pixart")), ("transformer_blocks.0.norm1", "LayerNorm")
    zoo = make_style_zoo(base, count=8)[0]
    return Stand(base, save(data, make_style_rows), zoo, make_style_task(), StyleScorer, other)


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
