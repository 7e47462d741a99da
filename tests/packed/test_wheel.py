"""The wheel, installed on its own: what is in it, what it asks for, and that its commands need no extra."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from condpdiff.common.errors import EXTRAS
from condpdiff.common.files import read_json, write_json
from condpdiff.packed.generator import CONFIG
from tests.packed.tiny_generators import text_generator

ROOT = Path(__file__).parents[2]
NOT_CORE = [name for names in EXTRAS.values() for name in names] + ["evaluate", "mkdocs", "pytest"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy: setuptools leaves its own folders beside pyproject.toml."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("condpdiff", "stages", "tests", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    _pip("wheel", "--no-build-isolation", "--wheel-dir", str(out), str(source))
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def away(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder outside the repository, and an environment where the wheel is first and the extras' libraries lack."""
    there, target, site = (tmp_path_factory.mktemp(name) for name in ("away", "target", "site"))
    _pip("install", "--target", str(target), str(wheel))
    (site / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({NOT_CORE}))\n")
    return there, {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{target}", "HF_HUB_OFFLINE": "1"}


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", words[0], "--quiet", "--no-deps", "--no-index", *words[1:]]
    subprocess.check_output(command, stderr=subprocess.STDOUT)


def call(away: tuple[Path, dict[str, str]], *words: str, status: int = 0) -> str:
    """What `condpdiff WORDS` prints there; of several lines of errors, the last one."""
    there, environment = away
    entry = Path(environment["PYTHONPATH"].split(os.pathsep)[1]) / "bin/condpdiff"
    done = subprocess.run([entry, *words], cwd=there, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def test_the_library_and_its_templates_are_inside_and_nothing_else(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    kinds = (".py", ".j2", ".mplstyle")
    assert inside == {str(p.relative_to(ROOT)) for p in (ROOT / "condpdiff").rglob("*") if p.suffix in kinds}


def test_extras_are_what_errors_say() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {Requirement(line).name for line in project["dependencies"]}
    assert {"torch", "peft", "transformers", "diffusers", "safetensors", "typer"} <= core
    imported_as = {"clean-fid": "cleanfid", "open_clip_torch": "open_clip"}
    imported_as |= {"scikit-learn": "sklearn", "ruamel.yaml": "ruamel"}
    for extra, names in EXTRAS.items():
        given = {Requirement(line).name for line in project["optional-dependencies"][extra]}
        assert not given & core
        # jinja2 comes with torch, evaluate is imported nowhere; the last two come with dvc and scikit-learn.
        given = {imported_as.get(name, name) for name in given} - {"jinja2", "evaluate"}
        assert given == set(names) - {"scmrepo", "threadpoolctl"}, extra
    everything = {Requirement(line).name: Requirement(line).extras for line in project["optional-dependencies"]["dev"]}
    assert everything["condpdiff"] == {*EXTRAS, "docs"}


def test_it_generates_and_applies_without_extras(base, away: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder = text_generator(tmp_path / "generator", base("bert")).folder
    config = read_json(folder / CONFIG)
    config["tasks"]["films"]["settings"]["metrics"] = ["accuracy"]  # the others are of an extra
    write_json(folder / CONFIG, config)
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "a good film,good\na bad film,bad\n" * 4)
    assert "condpdiff generate" in call(away, "generate", "--help")
    refined = ("--samples", "2", "--select-on", str(rows), "--steps", "2", "--base", str(base("bert")))
    call(away, "generate", str(folder), "--task", "films", *refined)
    assert "good" in call(away, "apply", "adapters/0", "--text", "a lovely plot")
    code = "import condpdiff, sys; print(condpdiff.__file__); assert 'torch' not in sys.modules"
    where = subprocess.check_output([sys.executable, "-c", code], cwd=away[0], env=away[1], text=True)
    assert Path(where.strip()).is_relative_to(away[1]["PYTHONPATH"].split(os.pathsep)[1])


@pytest.mark.parametrize("words", [("preset",), ("describe",), ("study",), ("study", "show", "x")])
def test_a_missing_extra_is_one_line_that_says_how_to_have_it(
    away: tuple[Path, dict[str, str]], words: tuple[str, ...]
) -> None:
    line = call(away, *words, status=1)
    assert re.fullmatch(r"error: this needs \w+: pip install 'condpdiff\[pipeline\]'\n", line)
