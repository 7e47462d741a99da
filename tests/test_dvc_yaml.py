"""dvc.yaml covers what its stages import, read and write: DVC follows no imports, so nothing else would notice."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from condpdiff.common.settings import DOMAINS
from condpdiff.text.task import Task

ROOT = Path(__file__).parent.parent
DVC_YAML = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES: dict[str, dict[str, Any]] = DVC_YAML["stages"]
CODE = ("condpdiff", "stages")
SECTION_FILE = "data/settings/${item.task}/"


def module_file(name: str) -> str:
    return f"stages/{name.replace('-', '_')}.py"


def modules(file: Path) -> list[Path]:
    """All of a package's modules; `__init__.py` files hold docstrings alone."""
    return [path for path in sorted(file.rglob("*.py")) if path.name != "__init__.py"]


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def imports(file: str) -> set[str]:
    """Files of this project that one file imports, wherever in it the import stands."""
    names: set[str] = set()
    typing = {id(n) for guard in ast.walk(tree(file)) if for_typing(guard) for n in ast.walk(guard)}
    for node in (n for n in ast.walk(tree(file)) if id(n) not in typing):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    for call, _ in calls(file, "module"):
        assert isinstance(call.args[0], ast.Constant), f"{file}: a domain's module whose name is not in the source"
        names |= {f"condpdiff.{domain}.{call.args[0].value}" for domain in DOMAINS}
    paths = {name.replace(".", "/") + ".py" for name in names if name.split(".")[0] in CODE}
    return {path for path in paths if (ROOT / path).is_file()}


def for_typing(node: ast.AST) -> bool:
    """An `if TYPE_CHECKING:`, which imports nothing when the program runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def files_of(stage: str) -> set[str]:
    """Files of this project that a stage imports, directly or not, its own included, in all domains."""
    found: set[str] = set()
    todo = {module_file(stage)}
    while todo:
        found |= todo
        todo = {below for file in todo for below in imports(file)} - found
    return found


def declared_code(stage: str) -> dict[str, set[Path]]:
    """Code dependencies of a stage, each with the files that it stands for: a folder, a file, a domain's file."""
    deps = [dep for dep in STAGES[stage]["deps"] if dep.split("/")[0] in CODE]
    found = {}
    for dep in deps:
        paths = {ROOT / dep.replace("${domain}", domain) for domain in DOMAINS}
        found[dep] = {file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])}
    return found


def calls(file: str, name: str) -> Iterator[tuple[ast.Call, ast.AST | None]]:
    """Calls of the function `name`, each with the attribute access round it, if there is one."""
    attributes = {id(node.value): node for node in ast.walk(tree(file)) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node, attributes.get(id(node))


def keys_read(stage: str) -> set[str]:
    """Keys of params.yaml that a stage's module reads: whole sections, or `section.key` where it takes one alone."""
    file = module_file(stage)
    found = set()
    for call, attribute in calls(file, "section"):
        name = call.args[0]
        assert isinstance(name, ast.Constant), f"{file}: a section whose name is not in the source"
        found.add(f"{name.value}.{attribute.attr}" if isinstance(attribute, ast.Attribute) else name.value)
    if any(calls(file, "tasks")):
        found.add("tasks")
    if any(calls(file, "module")):
        found.add("domain")
    return found


def task_sections_read(stage: str) -> set[str]:
    """Sections of a task file that a stage's code takes from `task` or `something.task`, if it loads one.

    None for a stage that depends on all sections of all tasks.
    """
    if "data/settings" in STAGES[stage]["deps"]:
        return set()
    if "load_task" not in {n.attr for n in ast.walk(tree(module_file(stage))) if isinstance(n, ast.Attribute)}:
        return set()
    attributes = [n for file in files_of(stage) for n in ast.walk(tree(file)) if isinstance(n, ast.Attribute)]
    owned = {(getattr(n.value, "id", None) or getattr(n.value, "attr", None), n.attr) for n in attributes}
    return {attr for owner, attr in owned if owner == "task" and attr in Task.model_fields}


def declared_sections(stage: str) -> set[str]:
    """Sections of the task's file that a stage depends on."""
    return {Path(dep).stem for dep in STAGES[stage]["deps"] if dep.startswith(SECTION_FILE)}


def test_every_stage_module_is_a_stage_and_the_other_way_round() -> None:
    assert {module_file(stage) for stage in STAGES} == {str(p.relative_to(ROOT)) for p in modules(ROOT / "stages")}


@pytest.mark.parametrize("stage", STAGES)
def test_command_is_python_m_of_the_stage_and_nothing_else(stage: str) -> None:
    """`python stages/NAME.py` would import the main workspace's package in a temporary experiment.

    All that stands in a command enters the cache key, so a task's name stands there and no hyperparameter.
    """
    per_task = STAGES[stage].get("matrix")
    assert per_task in (None, {"task": "${tasks}"})
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage.replace('-', '_')}" + (" ${item.task}" if per_task else "")


@pytest.mark.parametrize("stage", STAGES)
def test_every_import_lies_under_a_declared_dependency(stage: str) -> None:
    covered = set().union(*declared_code(stage).values())
    assert not {file for file in files_of(stage) if ROOT / file not in covered}


@pytest.mark.parametrize("stage", STAGES)
def test_every_declared_dependency_is_imported(stage: str) -> None:
    """One that is not would rerun the stage for nothing."""
    imported = {ROOT / file for file in files_of(stage)}
    assert not [dep for dep, files in declared_code(stage).items() if not files & imported]


def test_no_import_escapes_the_static_walk() -> None:
    """What Python really loads with a stage is among the files found in the source."""
    script = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(f'stages.{name}')\n"
        f"    ours = [m for m in sys.modules if m.split('.')[0] in {CODE}]\n"
        "    print(json.dumps([name, ours]))\n"
        "    for m in ours: del sys.modules[m]\n"
    )
    names = [Path(module_file(stage)).stem for stage in STAGES]
    output = subprocess.run(
        [sys.executable, "-c", script, *names], cwd=ROOT, text=True, capture_output=True, check=True
    ).stdout
    loaded = dict(json.loads(line) for line in output.splitlines() if line.startswith("["))
    assert set(loaded) == set(names)
    for stage in STAGES:
        files = {name.replace(".", "/") + ".py" for name in loaded[Path(module_file(stage)).stem]}
        assert {file for file in files if (ROOT / file).is_file()} <= files_of(stage)


def test_init_files_hold_no_code() -> None:
    """But for common's, of which every stage depends on the folder: a stage must not be able to change with them."""
    for package in CODE:
        for path in (ROOT / package).rglob("__init__.py"):
            body = ast.parse(path.read_text(encoding="utf-8")).body
            code = [node for node in body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
            # The package's own hands out two public classes when they are asked for.
            assert not code or path.parent in (ROOT / "condpdiff/common", ROOT / "condpdiff"), path


@pytest.mark.parametrize("stage", STAGES)
def test_every_dependency_that_no_stage_writes_is_there(stage: str) -> None:
    """A domain has every module that another one has: DVC stops at a dependency that is not there."""
    for dep in STAGES[stage]["deps"]:
        paths = [ROOT / dep.replace("${domain}", domain) for domain in DOMAINS]
        assert dep.startswith("data/") or all(path.exists() for path in paths), dep


@pytest.mark.parametrize("stage", STAGES)
def test_data_dependencies_are_outs_of_other_stages(stage: str) -> None:
    outs = [Path(out) for other in STAGES for out in STAGES[other]["outs"] if other != stage]
    for dep in (Path(dep) for dep in STAGES[stage]["deps"] if dep.startswith("data/")):
        assert any(out == dep or out in dep.parents or dep in out.parents for out in outs), dep


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_the_keys_that_the_stage_reads(stage: str) -> None:
    whole = any(calls(module_file(stage), "load_params"))
    assert ("params.yaml" in STAGES[stage]["deps"]) == whole
    if not whole:
        assert set(STAGES[stage].get("params", [])) == keys_read(stage)
    assert declared_sections(stage) == task_sections_read(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_stages_of_all_members_depend_on_who_they_are(stage: str) -> None:
    files = files_of(stage) - {"condpdiff/common/task.py"}
    asks = any(any(calls(file, name)) for file in files for name in ("members", "grouped"))
    assert ("data/members.json" in STAGES[stage]["deps"]) == asks


@pytest.mark.parametrize("stage", STAGES)
def test_every_out_is_cached(stage: str) -> None:
    """`cache: false` or `persist: true` on an out switches DVC's run cache off for the stage."""
    assert all(isinstance(out, str) for out in STAGES[stage]["outs"])
    metrics = STAGES[stage].get("metrics", [])
    assert metrics == ([{"report/metrics.json": {"cache": False}}] if stage == "report" else [])
    assert "plots" not in STAGES[stage]


def test_plots_lie_in_cached_outs_and_their_templates_exist() -> None:
    outs = [Path(out) for stage in STAGES.values() for out in stage["outs"]]
    for plot in DVC_YAML["plots"]:
        ((path, settings),) = plot.items()
        assert any(out in Path(path).parents for out in outs), path
        assert (ROOT / f".dvc/plots/{settings['template']}.json").is_file()


def test_dvc_ignores_what_python_writes_beside_the_code() -> None:
    """A dependency on a folder of modules would change because Python ran."""
    assert {"__pycache__/", "*.pyc"} <= set((ROOT / ".dvcignore").read_text(encoding="utf-8").split())


@pytest.mark.parametrize(("folder", "limit"), [("stages", 40), ("condpdiff", 350)])
def test_modules_are_short(folder: str, limit: int) -> None:
    for path in modules(ROOT / folder):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= limit, path


def test_no_code_has_a_path_that_a_temporary_experiment_lacks() -> None:
    """`dvc exp run --temp` copies the repository: neither `__file__` of a script nor an absolute path holds there."""
    for path in modules(ROOT / "stages"):
        text = path.read_text(encoding="utf-8")
        assert "__file__" not in text and not re.search(r"""["']/\w""", text), path
