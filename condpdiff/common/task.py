"""Tasks: their files `configs/tasks/<task>.yaml`, what check-params makes of them, and what every domain's task has.

check-params writes each section of a task's file to `data/settings/<task>/<section>.json`. Later stages depend on the
sections that they read, so a changed description refits nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from condpdiff.common.errors import UserError, nearest
from condpdiff.common.files import read_json, write_json
from condpdiff.common.settings import Section, parse, read_yaml

TASKS = Path("configs/tasks")
SETTINGS = Path("data/settings")


class Finetune(Section):
    """Fine-tuning settings of one task; each task has its own."""

    steps: PositiveInt
    """Steps before the collection window opens."""
    batch_size: PositiveInt = 16
    lr: PositiveFloat
    """Peak learning rate of the LoRA matrices."""
    warmup: float = Field(0.06, ge=0, le=1)
    """Share of `steps` over which the rate rises linearly from 0."""
    weight_decay: float = Field(0.0, ge=0)


class Task(Section):
    """One task; its domain says what stands in `data` and `condition`."""

    data: Section
    """Where the task's rows come from."""
    condition: Section
    """What tells the generator about the task."""
    metrics: Sequence[str]
    """The first one ranks candidates; all are reported."""
    finetune: Finetune


T = TypeVar("T", bound=Task)


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


def save_sections(folder: Path, name: str) -> None:
    """Write every section of a task's file to `folder/<section>.json`; `load_sections` is its inverse."""
    folder.mkdir(parents=True)
    for section, value in read_yaml(task_path(name)).items():
        write_json(folder / f"{section}.json", value)


def load_sections(name: str, model: type[T], settings: Path = SETTINGS) -> T:
    """The task as check-params left it: what a stage reads.

    Raises:
        UserError: check-params has not seen this task.
    """
    files = sorted((settings / name).glob("*.json"))
    if not files:
        raise UserError(f"{settings / name}: no such task; run `dvc repro`")
    return parse(model, {path.stem: read_json(path) for path in files}, f"{TASKS / name}.yaml")


class Data(Section):
    """Section `data`: how many rows prepare-data keeps."""

    max_train: PositiveInt
    """Training rows kept (a random subset; all rows if fewer), those held out among them."""
    held_out: NonNegativeInt = 0
    """Training rows of these that fine-tuning never sees: they rate checkpoints and select candidates."""
    max_validation: PositiveInt
    """Validation rows kept."""
    seed: int = 0


class Base(Section):
    """Section `base`: the pre-trained model that every LoRA is merged into."""

    source: Literal["package", "trained", "hub", "local"]
    """`package`: out of a Python package (text); `trained`: trained here, on photographs that packages ship (style);
    `hub`: a Hugging Face id; `local`: a directory."""
    name: str
    """The package's name, the file of configs/models/ that says what is trained, the hub's id, or the directory."""
    inception: str | None = None
    """Where the network of the metric `fid` comes from: `download` (clean-fid's address), or a file's path (style)."""
