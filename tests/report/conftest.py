"""A small made-up run for the report's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_run import build


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two tasks, one of each kind; the working directory is the run's root."""
    root = build(tmp_path / "run")
    monkeypatch.chdir(root)
    yield root
