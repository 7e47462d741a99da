"""Fixtures that several modules' tests share; what they hold is random (see stand_ins.py)."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`base("bert" | "roberta" | "deberta")`: the folder of that family's random stand-in."""
    from tests.stand_ins import save_base  # here, for tests that need no torch

    return cache(lambda model_type: save_base(model_type, tmp_path_factory.mktemp(model_type)))


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """The folder of a prepared two-class task."""
    from tests.stand_ins import save_rows

    return save_rows(tmp_path / "data/tasks/films")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub can't be reached, and nobody waits for it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
