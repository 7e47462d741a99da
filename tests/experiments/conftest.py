"""The folder that most tests here work in."""

import shutil
from pathlib import Path

import pytest

from condpdiff.experiments.presets import apply, load_preset

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """configs/ and params.yaml of the default run, in the layout of the real one."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONDPDIFF_CACHE", str(tmp_path / "cache"))
    apply(load_preset("default"))  # the real one may hold another preset just now
    return tmp_path
