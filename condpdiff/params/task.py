"""Task files, `configs/tasks/<task>.yaml`; what stands in one is its domain's to say (`condpdiff/<domain>/task.py`)."""

from pathlib import Path
from typing import TypeVar

from condpdiff.errors import UserError, nearest
from condpdiff.params.section import Section, parse, read_yaml

TASKS = Path("configs/tasks")
T = TypeVar("T", bound=Section)


def task_path(name: str) -> Path:
    """Path of a task's file.

    Raises:
        UserError: there is no such task; names the nearest one.
    """
    path = TASKS / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in TASKS.glob("*.yaml"))
        raise UserError(f"params.yaml: tasks: unknown task {name!r}{nearest(name, known)}; allowed: {', '.join(known)}")
    return path


def read_task(name: str, model: type[T]) -> T:
    """Read and check `configs/tasks/<name>.yaml`."""
    path = task_path(name)
    return parse(model, read_yaml(path), str(path))
