"""Fixtures of the style domain; what they hold is random (see stand_ins_style.py)."""

from io import BytesIO
from pathlib import Path

import pytest
import torch

from condpdiff.style import base as module
from condpdiff.style import small_pixart
from tests.style.stand_ins_small_pixart import PHOTOGRAPHS, save_config
from tests.style.stand_ins_style import random_lite0, save_style_base


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the tiny model's file; photographs and the package's weights are stand-ins."""
    weights = BytesIO()
    torch.save(random_lite0(), weights)
    monkeypatch.setattr(module, "read_member", lambda *_: weights.getvalue())
    monkeypatch.setattr(small_pixart, "photographs", lambda: PHOTOGRAPHS)
    monkeypatch.chdir(tmp_path)
    save_config(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random PixArt; tests change copies alone."""
    return save_style_base(tmp_path_factory.mktemp("pixart") / "base")


@pytest.fixture
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
