"""What a study runs: `configs/studies/NAME.yaml` -> its rows at one size, each with the settings of its experiments.

A row changes some keys of the preset that all rows of its size share. Settings are whole and checked, so an experiment
belongs to a row if its metrics.json has the fingerprint of the row's settings, whatever it is called.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from condpdiff.common.errors import UserError, nearest
from condpdiff.common.settings import Section, parse, read_yaml
from condpdiff.common.task import TASKS
from condpdiff.experiments.params import fingerprint
from condpdiff.experiments.presets import CONFIGS, Preset, load_preset, with_keys

STUDIES = CONFIGS / "studies"
SIZES = ("embedded", "paper")
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]  # part of a Git ref
Seed = Annotated[int, Field(ge=0)]


class RowFile(Section):
    """One row of a study's file."""

    preset: str | None = None
    """In place of the size's."""
    keys: dict[str, Any] = {}
    """Keys of params.yaml, or `configs/tasks/NAME.yaml:key` as DVC writes a task file's."""
    seeds: list[Seed] | None = Field(None, min_length=1)
    """In place of the size's."""
    paper: dict[str, str | float] | None = None
    """Values of columns of the paper's csv that pick this row's lines there; null: the paper has no such row."""


class SizeFile(Section):
    """What the rows of one size share."""

    preset: str
    keys: dict[str, Any] = {}
    seeds: list[Seed] = Field([0], min_length=1)
    seed_keys: list[str] | None = None
    """In place of the study's."""
    rows: dict[Name, Any] = {}
    """Each a `RowFile`; they come after the rows that both sizes have."""


class StudyFile(Section):
    """The whole of `configs/studies/NAME.yaml`."""

    claim: str
    """What the paper says, in a sentence."""
    paper: str | None
    """File of configs/paper with the paper's figures."""
    seed_keys: list[str] = ["ae.seed", "ldm.seed", "sample.seed"]
    """What a seed sets; these are the generator's."""
    sizes: dict[Literal["embedded", "paper"], Any]
    """Each a `SizeFile`."""
    rows: dict[Name, Any] = {}
    """Rows of both sizes, each a `RowFile`."""


@dataclass(frozen=True)
class Run:
    """One experiment of a row."""

    name: str
    seed: int
    preset: Preset
    """params.yaml and task files as the experiment has them."""
    task_keys: dict[str, Any]
    """`configs/tasks/NAME.yaml:key` -> value, where it differs from the working tree's file."""

    @property
    def settings(self) -> str:
        return fingerprint(self.preset.params, self.preset.tasks)


@dataclass(frozen=True)
class Row:
    name: str
    runs: list[Run]
    paper: dict[str, str | float] | None
    shared: bool
    """Its settings are the ones that all rows share: what the others are compared with. No row is, where rows
    have presets of their own."""


@dataclass(frozen=True)
class Study:
    """A study at one size."""

    name: str
    size: str
    title: str
    claim: str
    paper: Path | None
    rows: list[Row]

    @property
    def shared(self) -> Row | None:
        return next((row for row in self.rows if row.shared), None)


def study_names() -> list[str]:
    """Every study's name."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def about(name: str) -> str:
    """What a study is: the comment that its file begins with (its first line)."""
    return path_of(name).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").rstrip(".")


def path_of(name: str) -> Path:
    """Path of a study's file.

    Raises:
        UserError: there is no such study; names the nearest one.
    """
    if name not in (known := study_names()):
        raise UserError(f"unknown study {name!r}{nearest(name, known)}; allowed: {', '.join(known)}")
    return STUDIES / f"{name}.yaml"


def load_study(name: str, size: str = "embedded") -> Study:
    """Read a study's file and check the settings of all its rows at one size.

    Raises:
        UserError: the first thing wrong, in one line that names the file, the row and the key.
    """
    path = path_of(name)
    file = parse(StudyFile, read_yaml(path), str(path))
    if size not in file.sizes:
        raise UserError(f"{path}: sizes: found {', '.join(file.sizes)}, asked for {size!r}")
    # Piece by piece, so that an error tells the keys that are allowed in that piece.
    shared = parse(SizeFile, file.sizes[size], str(path), f"sizes.{size}")
    files = {row: parse(RowFile, data, str(path), f"rows.{row}") for row, data in {**file.rows, **shared.rows}.items()}
    seed_keys = file.seed_keys if shared.seed_keys is None else shared.seed_keys
    prefix = name if size == "embedded" else f"{name}-{size}"
    load = cache(load_preset)
    base = _preset(load(shared.preset), shared.keys, f"{path}: sizes.{size}")
    rows = []
    comparable = len(files) > 1 and not any(row.preset for row in files.values())
    for row_name, row in files.items():
        where = f"{path}: rows.{row_name}"
        keys = {**shared.keys, **row.keys}
        if clash := sorted(set(keys) & set(seed_keys)):
            raise UserError(f"{where}: {clash[0]}: found a key that `seeds` sets, allowed: `seeds: [{keys[clash[0]]}]`")
        plain = _preset(load(row.preset or shared.preset), keys, where)
        task_keys = {key: value for key, value in keys.items() if ":" in key}
        runs = []
        for seed in row.seeds or shared.seeds:
            seeded = with_keys(plain, dict.fromkeys(seed_keys, seed), f"{path}: seed_keys")
            suffix = f"-s{seed}" if seed else ""
            runs.append(Run(f"{prefix}-{row_name}{suffix}", seed, seeded, task_keys))
        same = fingerprint(plain.params, plain.tasks) == fingerprint(base.params, base.tasks)
        rows.append(Row(row_name, runs, row.paper, shared=comparable and same))
    if not rows:
        raise UserError(f"{path}: found no rows of size {size!r}")
    csv = None if file.paper is None else CONFIGS / "paper" / file.paper
    if csv is not None and not csv.is_file():
        raise UserError(f"{path}: paper: found {file.paper!r}, allowed: a file of {csv.parent}")
    return Study(name, size, about(name), file.claim, csv, rows)


def pick_rows(study: Study, names: list[str]) -> list[Row]:
    """The rows of these names; all rows without names.

    Raises:
        UserError: there is no such row; names the nearest one.
    """
    known = [row.name for row in study.rows]
    for name in names:
        if name not in known:
            raise UserError(
                f"study {study.name}: unknown row {name!r}{nearest(name, known)}; allowed: {', '.join(known)}"
            )
    return [row for row in study.rows if not names or row.name in names]


def _preset(preset: Preset, keys: Mapping[str, Any], where: str) -> Preset:
    """A preset with a row's keys: params.yaml's, then the task files'."""
    preset = with_keys(preset, {key: value for key, value in keys.items() if ":" not in key}, where)
    tasks = dict(preset.tasks)
    for key, value in keys.items():
        file, colon, dotted = key.partition(":")
        if not colon:
            continue
        task = Path(file).stem
        if Path(file) != TASKS / f"{task}.yaml" or task not in tasks:
            allowed = ", ".join(str(TASKS / f"{t}.yaml") for t in tasks)
            raise UserError(f"{where}: {key}: found file {file!r}, allowed: {allowed}")
        data = tasks[task].model_dump(mode="json", exclude_unset=True)
        *parents, leaf = dotted.split(".")
        below = data
        for parent in parents:
            below = below.setdefault(parent, {}) if isinstance(below, dict) else {}
        below[leaf] = copy.deepcopy(value)
        tasks[task] = parse(type(tasks[task]), data, f"{where}: {file}")
    return replace(preset, tasks=tasks)
