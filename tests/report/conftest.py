"""A made-up run of text tasks: a read-only one that a session builds once, and copies to change."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from fake_run import build, write_study

from condpdiff.experiments.params import Params, load_params
from condpdiff.report.blocks import Block, Table
from condpdiff.report.evaluation import Evaluation, read_evaluation
from stages import report


class Made(NamedTuple):
    """A run whose report is made; for tests that only look."""

    root: Path
    report: Path
    page: str
    evaluations: list[Evaluation]
    params: Params


def opened() -> tuple[list[Evaluation], Params]:
    """What the report of the run in the working directory is made from."""
    params, tasks = load_params()
    return [read_evaluation(Path("data/eval", name), task) for name, task in tasks.items()], params


def tables(blocks: Iterable[Block]) -> list[Table]:
    return [block for block in blocks if isinstance(block, Table)]


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Two tasks, one of each kind, and a study; t-SNE, most of a report's time, is cut short: no test looks at it."""
    root = build(tmp_path_factory.mktemp("text") / "run")
    write_study(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("condpdiff.report.novelty_section.ITERATIONS", 250)
        with pytest.MonkeyPatch.context() as inside:
            inside.chdir(root)
            report.main()
            made = Made(root, root / "report", (root / "report/index.html").read_text(), *opened())
        yield made


@pytest.fixture
def movies(text: Made) -> Evaluation:
    return text.evaluations[0]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures without content: drawing is most of a report's time."""
    monkeypatch.setattr("condpdiff.report.novelty_section.embed", lambda distances, *_: np.zeros((len(distances), 2)))
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda _, file, **__: file.write("<svg></svg>"))


@pytest.fixture
def run(text: Made, undrawn: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, which is the working directory; its figures are not drawn."""
    shutil.copytree(text.root, tmp_path / "run", ignore=shutil.ignore_patterns("report", "studies"))
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"
