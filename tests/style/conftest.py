"""Fixtures of the style domain; what they hold is random (see stand_ins_style.py)."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from condpdiff.style import base as module
from condpdiff.style import photographs, small_pixart
from condpdiff.style.families import drawing
from condpdiff.style.photographs import Photograph
from tests.stand_ins import FILLERS, GOOD
from tests.style.stand_ins_style import PHOTOGRAPHS, random_lite0, save_config, save_style_base


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
def ten_photographs(monkeypatch: pytest.MonkeyPatch) -> list[Photograph]:
    """In place of the real ones: each of one grey all over, 0, 10 ... 90."""
    words = (FILLERS + GOOD)[:10]
    found = [Photograph(word, "whole", np.full((60, 80, 3), 10 * i, np.uint8)) for i, word in enumerate(words)]
    for each in (drawing, photographs):
        monkeypatch.setattr(each, "photographs", lambda: found)
    return found
