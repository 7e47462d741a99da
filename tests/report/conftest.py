"""A made-up run of text tasks: a read-only one that a session builds once, and copies to change."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fake_run import build, write_study

from condpdiff.domain import module
from condpdiff.experiments.params import Params, load_params
from condpdiff.report.spec import Spec
from stages import report


@dataclass(frozen=True)
class Made:
    """A run whose report is made; for tests that only look."""

    root: Path
    spec: Spec
    params: Params

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def page(self) -> str:
        return (self.report / "index.html").read_text()


def opened(root: Path = Path()) -> tuple[Spec, Params]:
    """What the report of the run in the working directory is made from."""
    params, tasks = load_params()
    return module("report").spec(tasks, root / "data"), params


@pytest.fixture(scope="session", autouse=True)
def _few_iterations() -> Iterator[None]:
    """t-SNE is most of a report's time, and no test looks at where its points come to lie."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("condpdiff.report.figures.ITERATIONS", 250)
        yield


def _made(root: Path) -> Made:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        report.main()
        return Made(root, *opened(root))


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two tasks, one of each kind, and a study."""
    root = build(tmp_path_factory.mktemp("text") / "run")
    write_study(root)
    return _made(root)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures without content: drawing is most of a report's time."""
    monkeypatch.setattr("condpdiff.report.figures.embed", lambda distances, *_: np.zeros((len(distances), 2)))
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda _, file, **__: file.write("<svg></svg>"))


@pytest.fixture
def run(text: Made, undrawn: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, which is the working directory; its figures are not drawn."""
    return copy(text, tmp_path, monkeypatch)


def copy(made: Made, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made.root, folder / "run", ignore=shutil.ignore_patterns("report", "studies"))
    monkeypatch.chdir(folder / "run")
    return folder / "run"
