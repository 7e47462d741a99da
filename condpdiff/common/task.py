"""Tasks: their files `configs/tasks/<task>.yaml`, what check-params makes of them, and what every domain's task has.

A *family* is one file, `configs/families/<family>.yaml`, that stands for many tasks, its members. A stage that runs
once a task runs once for all of a family's. Member q is called `<family>/<q>`. check-params writes each section of a
task's file to `data/settings/<task>/<section>.json`. Later stages depend on the sections that they read, so a changed
description refits nothing.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from condpdiff.common.errors import UserError, nearest
from condpdiff.common.files import as_spelt, digest, read_json, write_json
from condpdiff.common.settings import Section, parse, read_yaml

TASKS, FAMILIES, INPUTS = Path("configs/tasks"), Path("configs/families"), Path("inputs")
SETTINGS, MEMBERS = Path("data/settings"), Path("data/members.json")
SHA256 = "sha256"


class Finetune(Section):
    """Fine-tuning settings of one task; each task has its own."""

    steps: PositiveInt  # steps before the collection window opens
    batch_size: PositiveInt = 16
    lr: PositiveFloat  # peak learning rate of the LoRA matrices
    warmup: float = Field(0.06, ge=0, le=1)  # share of `steps` over which the rate rises linearly from 0
    weight_decay: float = Field(0.0, ge=0)


class Members(Section):
    """How many tasks a family stands for, in this order: with more or fewer to train on, the others stay the same."""

    unseen: NonNegativeInt  # results are of these: nothing is trained or chosen on them
    tuning: NonNegativeInt  # settings are chosen on these
    train: NonNegativeInt  # generators are trained on these; none of a family that is held out whole

    @property
    def total(self) -> int:
        """Q."""
        return self.unseen + self.tuning + self.train

    def trained_on(self, at_most: int | None) -> "Members":
        """The same, trained on the first ones alone."""
        return self if at_most is None else self.model_copy(update={"train": min(self.train, at_most)})

    def of(self, *tiers: str) -> list[int]:
        """Numbers of the members of some tiers."""
        start = {"unseen": 0, "tuning": self.unseen, "train": self.unseen + self.tuning}
        return [q for tier in tiers for q in range(start[tier], start[tier] + getattr(self, tier))]


class Task(Section):
    """One task; its domain says what stands in `data` and `condition`."""

    data: Section  # where the task's rows come from
    condition: Section  # what tells the generator about the task
    metrics: Sequence[str]  # the first one ranks candidates; all are reported
    finetune: Finetune
    members: Members | None = None  # of a family alone
    # The folder of inputs/ whose checkpoints are the task's, in place of fine-tuning: `condpdiff import` writes it.
    zoo: str | None = Field(None, exclude_if=lambda zoo: zoo is None)  # a file without it keeps its fingerprint


T = TypeVar("T", bound=Task)


def task_path(name: str) -> Path:
    """Path of a task's file, or a family's; a UserError if there is none, or its name can't stand in commands."""
    if not re.fullmatch(r"\w[\w.-]*", unicodedata.normalize("NFC", name)):
        raise UserError(f"params.yaml: tasks: found {name!r}, allowed: names of letters, digits, '-', '_' and '.'")
    paths = [as_spelt(folder / f"{name}.yaml") for folder in (FAMILIES, TASKS)]
    if found := [path for path in paths if path.is_file()]:
        return found[0]
    known = sorted(p.stem for folder in (TASKS, FAMILIES) for p in folder.glob("*.yaml"))
    raise UserError(f"params.yaml: tasks: unknown task {name!r}{nearest(name, known)}; allowed: {', '.join(known)}")


def read_task(name: str, model: type[T]) -> T:
    """Read and check the file of a task or a family."""
    path = task_path(name)
    return parse(model, read_yaml(path), str(path))


def save_sections(folder: Path, name: str) -> None:
    """Write every section of a task's file to `folder/<section>.json`; a UserError if the zoo's folder is not there.
    The user's own files have a hash there, so that other content reruns what reads them: rows and pictures in
    data.json, a zoo in finetune.json."""
    sections = {"members": None, **read_yaml(task_path(name))}
    if (zoo := sections.pop("zoo", None)) is not None:
        if Path(zoo).parent != INPUTS or not any(Path(zoo).glob("*")):
            allowed = f"a folder {INPUTS}/NAME that `condpdiff import` wrote"
            raise UserError(f"{task_path(name)}: zoo: found {zoo!r}, allowed: {allowed}")
        sections["finetune"] |= {"zoo": zoo, SHA256: _digest([Path(zoo)])}
    source = sections["data"]["source"]
    if source.get("type") in ("files", "folders") and "package" not in source:
        named = [as_spelt(Path(source[key])) for key in ("file", "train", "validation", "path") if key in source]
        sections["data"] |= {SHA256: _digest(named)}
    folder.mkdir(parents=True)
    for section, value in sections.items():
        write_json(folder / f"{section}.json", value)


def _digest(paths: Sequence[Path]) -> str:
    """Of files, and of the files of folders; what is not there is told by who reads it."""
    found = hashlib.sha256()
    for path in (inside for given in paths for inside in [given, *sorted(given.rglob("*"))] if inside.is_file()):
        found.update(path.as_posix().encode() + b"\0" + bytes.fromhex(digest(path, SHA256)))
    return found.hexdigest()


def load_sections(name: str, model: type[T], settings: Path = SETTINGS) -> T:
    """The task as check-params left it: what a stage reads. Raises UserError: check-params has not seen this task."""
    sections = {path.stem: read_json(path) for path in sorted((settings / name).glob("*.json"))}
    if not sections:
        raise UserError(f"{settings / name}: no such task; run `dvc repro`")
    for section in ("data", "finetune"):
        sections.get(section, {}).pop(SHA256, None)
    if "zoo" in sections.get("finetune", {}):
        sections["zoo"] = sections["finetune"].pop("zoo")
    return parse(model, sections, f"{TASKS / name}.yaml")


def save_members(path: Path, names: Sequence[str], found: Sequence[Members | None]) -> None:
    """Write a run's tasks in their order, each with its members: what stages that work on all tasks depend on."""
    write_json(path, [[name, None if m is None else m.model_dump()] for name, m in zip(names, found, strict=True)])


def members(*tiers: str, path: Path = MEMBERS) -> list[str]:
    """What a run generates for: its tasks, or those members of its families (`grouped`)."""
    return [name for group in grouped(*tiers, path=path).values() for name in group]


def number(member: str) -> int:
    """q of `<family>/<q>`."""
    return int(member.partition("/")[2])


def grouped(*tiers: str, path: Path = MEMBERS) -> dict[str, list[str]]:
    """Of each of a run's families its members `<family>/<q>` of some of the tiers `unseen`, `tuning` and `train`; a
    task is its own one member, of all tiers. A UserError if check-params has not run."""
    found = {name: None if each is None else Members(**each) for name, each in read_json(path)}
    return {k: [k] if m is None else [f"{k}/{q}" for q in m.of(*tiers)] for k, m in found.items()}


class Data(Section):
    """Section `data`: how many rows prepare-data keeps."""

    max_train: PositiveInt  # training rows kept (a random subset; all rows if fewer), those held out among them
    held_out: NonNegativeInt = 0  # of these, which fine-tuning never sees: they rate checkpoints and select candidates
    max_validation: PositiveInt  # validation rows kept
    seed: int = 0


class Base(Section):
    """Section `base`: the pre-trained model that every LoRA is merged into."""

    # `package`: out of a Python package (text); `trained`: here, on photographs that packages ship (style).
    source: Literal["package", "trained", "hub", "local"]
    name: str  # of the package, the file of configs/models/ that says what is trained, the hub's id, or the directory
    inception: str | None = None  # network of the metric `fid`: `download` (clean-fid's address), or a path (style)


class Form(Section):
    """How a file of rows is to be read (condpdiff/common/tables.py); what is null, its suffix says."""

    header: list[str] | None = None  # column names, where no line of the file has them (as CoLA's)
    separator: str | None = None
    """One character between two columns; a space separates as many as `header` names, and the last has the rest."""
    quoting: Literal["minimal", "none"] | None = None
    """minimal: a text in double quotes may hold separators and line ends; none: a quote is a character."""
    escape: str | None = None
    """Character before one that is meant as it is: a backslash, where a quote in a text is written so."""
    encoding: str | None = None  # name of a Python codec; null: UTF-8, or what a byte order mark says

    @field_validator("separator", "escape")
    @classmethod
    def _is_a_character(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or value in '"\r\n'):
            raise ValueError('one character (a tab is "\\t" in double quotes)')
        return value

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        try:
            "a".encode(value or "utf-8")
        except LookupError:
            raise ValueError("a name that Python knows, such as utf-8, utf-16, cp1252, latin-1") from None
        return value
