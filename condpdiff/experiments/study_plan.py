"""What a study runs: `configs/studies/NAME.yaml` -> its rows at one size, each with the settings of its experiments.

A row changes some keys of the preset that all rows of its size share. Settings are whole and checked, so an experiment
belongs to a row if its metrics.json has the fingerprint of the row's settings, whatever it is called.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from condpdiff.common.errors import UserError, nearest
from condpdiff.common.settings import Section, parse, read_yaml
from condpdiff.experiments.presets import CONFIGS, Preset, first_line, load_preset, with_keys

STUDIES = CONFIGS / "studies"
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]  # part of a Git ref
Seed = Annotated[int, Field(ge=0)]


class RowFile(Section):
    """One row of a study's file."""

    preset: str | None = None  # in place of the size's
    keys: dict[str, Any] = {}  # keys of params.yaml, or `configs/tasks/NAME.yaml:key` as DVC writes a task file's
    seeds: list[Seed] | None = Field(None, min_length=1)  # in place of the size's
    paper: dict[str, str | int] | None = None
    """Values of columns of the paper's csv that pick this row's lines there; null: the paper has no such row."""


class SizeFile(Section):
    """What the rows of one size share."""

    preset: str
    keys: dict[str, Any] = {}
    seeds: list[Seed] = Field([0], min_length=1)
    seed_keys: list[str] | None = None  # in place of the study's
    rows: dict[Name, RowFile] = {}  # they come after the rows that both sizes have


class StudyFile(Section):
    """The whole of `configs/studies/NAME.yaml`."""

    claim: str  # what the paper says, in a sentence
    paper: str | None  # file of configs/paper with the paper's figures
    seed_keys: list[str] = ["ae.seed", "ldm.seed", "sample.seed"]  # what a seed sets; these are the generator's
    sizes: dict[Literal["embedded", "paper"], SizeFile]
    rows: dict[Name, RowFile] = {}  # of both sizes


@dataclass(frozen=True)
class Row:
    name: str
    preset: Preset  # before a seed sets its keys
    runs: dict[int, Preset]  # seed -> params.yaml and task files as the experiment of that name has them
    paper: dict[str, str | int] | None


@dataclass(frozen=True)
class Study:
    name: str
    size: str
    title: str
    claim: str
    paper: Path | None
    rows: list[Row]
    shared: Row | None  # what others are compared with: its settings are all rows' shared ones; none has a preset

    @property
    def runs(self) -> list[Preset]:
        """Of all rows and seeds."""
        return [run for row in self.rows for run in row.runs.values()]


def study_names() -> list[str]:
    """Every study's name."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def about(name: str) -> str:
    """What a study is: the first line of its file."""
    return first_line(STUDIES / f"{name}.yaml")


def load_study(name: str, size: str = "embedded") -> Study:
    """Read a study's file and check the settings of all its rows at one size.
    Raises UserError: no such study (names the nearest one), or the first thing wrong, with its file, row and key."""
    if name not in (known := study_names()):
        raise UserError(f"unknown study {name!r}{nearest(name, known)}; allowed: {', '.join(known)}")
    path = STUDIES / f"{name}.yaml"
    file = parse(StudyFile, read_yaml(path), str(path))
    if size not in file.sizes:
        raise UserError(f"{path}: sizes: found {', '.join(file.sizes)}, asked for {size!r}")
    shared = file.sizes[size]
    seed_keys = file.seed_keys if shared.seed_keys is None else shared.seed_keys
    prefix = name if size == "embedded" else f"{name}-{size}"
    load = cache(load_preset)
    base = with_keys(load(shared.preset), shared.keys, f"{path}: sizes.{size}")
    rows, files = [], {**file.rows, **shared.rows}
    for row_name, row in files.items():
        where, keys = f"{path}: rows.{row_name}", {**shared.keys, **row.keys}
        if clash := sorted(set(keys) & set(seed_keys)):
            raise UserError(f"{where}: {clash[0]}: found a key that `seeds` sets, allowed: `seeds: [{keys[clash[0]]}]`")
        plain = with_keys(load(row.preset or shared.preset), keys, where)
        runs = {}
        for seed in row.seeds or shared.seeds:
            seeded = with_keys(plain, dict.fromkeys(seed_keys, seed), f"{path}: seed_keys")
            runs[seed] = replace(seeded, name=f"{prefix}-{row_name}{f'-s{seed}' if seed else ''}")
        rows.append(Row(row_name, plain, runs, row.paper))
    if not rows:
        raise UserError(f"{path}: found no rows of size {size!r}")
    csv = CONFIGS / "paper" / file.paper if file.paper else None
    if csv and not csv.is_file():
        raise UserError(f"{path}: paper: found {file.paper!r}, allowed: a file of {csv.parent}")
    comparable = [] if len(rows) == 1 or any(row.preset for row in files.values()) else rows
    reference = next((row for row in comparable if row.preset.settings == base.settings), None)
    return Study(name, size, about(name), file.claim, csv, rows, reference)


def pick_rows(study: Study, names: list[str]) -> Study:
    """The study with the rows of these names alone, or all without names; a UserError where there is no such row."""
    known = [row.name for row in study.rows]
    if unknown := [name for name in names if name not in known]:
        hint = f"{nearest(unknown[0], known)}; allowed: {', '.join(known)}"
        raise UserError(f"study {study.name}: unknown row {unknown[0]!r}{hint}")
    return replace(study, rows=[row for row in study.rows if not names or row.name in names])
