"""Fixtures that several modules' tests share; what they hold is random (see stand_ins.py)."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each worker, and of what it starts; nothing has loaded torch yet

FIRST = ("test_families_smoke.py", "test_smoke.py", "test_dag.py")
"""The longest files: workers take files in the order of the collection, so a long one at the end would run alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first, in the order of `FIRST`."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`base("bert" | "roberta" | "deberta")`: the folder of that family's random stand-in."""
    from tests.stand_ins import save_base  # here, for tests that need no torch

    return cache(lambda model_type: save_base(model_type, tmp_path_factory.mktemp(model_type)))


@pytest.fixture
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """The folder of a prepared two-class task."""
    from tests.stand_ins import save_rows

    return save_rows(tmp_path / "data/tasks/films")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub can't be reached, and nobody waits for it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
