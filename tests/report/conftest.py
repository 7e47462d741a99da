"""A small made-up run for the report's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_run import build


@pytest.fixture(scope="session", autouse=True)
def _few_iterations() -> Iterator[None]:
    """t-SNE is most of a report's time, and no test looks at where its points come to lie."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("condpdiff.report.tsne.ITERATIONS", 250)
        yield


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two tasks, one of each kind; the working directory is the run's root."""
    root = build(tmp_path / "run")
    monkeypatch.chdir(root)
    yield root
