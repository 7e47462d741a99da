"""Task files, `configs/tasks/<task>.yaml`; what stands in one is its domain's to say (`condpdiff/<domain>/task.py`).

Section `data`: how many rows prepare-data keeps.

Section `base`: the pre-trained model that every LoRA is merged into.
"""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import NonNegativeInt, PositiveInt

from condpdiff.common.errors import UserError, nearest
from condpdiff.common.settings import Section, parse, read_yaml

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


class Data(Section):
    max_train: PositiveInt
    """Training rows kept (a random subset; all rows if fewer), those held out among them."""
    held_out: NonNegativeInt = 0
    """Training rows of these that fine-tuning never sees: they rate checkpoints and select candidates."""
    max_validation: PositiveInt
    """Validation rows kept."""
    seed: int = 0


class Base(Section):
    source: Literal["package", "trained", "hub", "local"]
    """`package`: out of a Python package (text); `trained`: trained here, on photographs that packages ship (style);
    `hub`: a Hugging Face id; `local`: a directory."""
    name: str
    """The package's name, the file of configs/models/ that says what is trained, the hub's id, or the directory."""
    inception: str | None = None
    """Where the network of the metric `fid` comes from: `download` (clean-fid's address), or a file's path (style)."""
