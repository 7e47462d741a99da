"""Presets: `configs/NAME.yaml` holds the keys of params.yaml that differ from `configs/default.yaml`.

Applying a preset sets params.yaml to default + preset, whatever it held before, and changes nothing else of the file:
comments, order and numbers as they are written stay (ruamel.yaml). `NAME-rR` is preset NAME at rank R.
"""

import copy
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter

from condpdiff.common.errors import UserError, nearest
from condpdiff.common.files import write_text
from condpdiff.common.settings import PARAMS, parse, read_yaml
from condpdiff.common.task import task_path
from condpdiff.experiments.params import Params, check_run, fingerprint

CONFIGS, DEFAULT = Path("configs"), "default"
# The ranks of the paper's Table 1; `NAME-rR` takes any other rank as well.
TABLE_1_RANKS = {"bert-base": (1, 2, 4, 16), "roberta-base": (1, 2, 4), "deberta-base": (1, 2, 4)}
_WORD = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z_][\w./:-]*", re.IGNORECASE)


@dataclass(frozen=True)
class Preset:
    """A whole run: default.yaml, with the preset's own keys in place of its."""

    name: str
    values: dict[str, Any]  # dotted key of params.yaml -> value; numbers know how their file of configs/ writes them
    params: Params
    tasks: dict[str, Any]
    task_keys: dict[str, Any] = field(default_factory=dict)
    """`configs/tasks/NAME.yaml:key` -> value, where `tasks` differ from their files."""

    @property
    def settings(self) -> str:
        """The fingerprint that its run's metrics.json has."""
        return fingerprint(self.params, self.tasks)


class Change(NamedTuple):
    """One key that applying a preset changes."""

    key: str
    old: str | None  # the value as YAML on one line; None: the key is not in params.yaml
    new: str
    option: str  # what follows `-S` of `dvc exp run`; a key that params.yaml does not have yet is added (`++`)


def preset_names() -> list[str]:
    """Every preset's name, `default` first, ranks written out."""
    stems = [path.stem for path in CONFIGS.glob("*.yaml")]
    stems.sort(key=lambda stem: (stem != DEFAULT, stem in TABLE_1_RANKS, stem))
    ranked = {stem: [f"{stem}-r{rank}" for rank in ranks] for stem, ranks in TABLE_1_RANKS.items()}
    return [name for stem in stems for name in ranked.get(stem, [stem])]


def about(name: str) -> str:
    """What a preset is: the first line of its file."""
    stem, rank = _split(name)
    return first_line(CONFIGS / f"{stem}.yaml") + (f"; rank {rank}" if rank else "")


def first_line(path: Path) -> str:
    """The comment that a file begins with."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").rstrip(".")


def load_preset(name: str) -> Preset:
    """Read a preset and check the whole run that it makes, with the files of its tasks.
    Raises UserError: no such preset (names the nearest one), or the first thing wrong in its file."""
    stem, rank = _split(name)
    path, default = CONFIGS / f"{stem}.yaml", CONFIGS / f"{DEFAULT}.yaml"
    if not path.is_file():
        known = preset_names()
        raise UserError(f"unknown preset {name!r}{nearest(name, known)}; allowed: {', '.join(known)}")
    values = _leaves(_load(default))
    parse(Params, _nested(values), str(default))  # by itself, so that an error names the file that it is in
    values |= _leaves(_load(path))
    if rank:
        values |= {"collect.rank": int(rank), "collect.alpha": float(rank)}
    return Preset(name, values, *check_run(_nested(values), str(path)))


def with_keys(preset: Preset, keys: Mapping[str, Any], where: str) -> Preset:
    """A preset with other values of some keys, of params.yaml or `configs/tasks/NAME.yaml:key`; checked as a whole.
    Raises UserError: no such key, task or value; `where` names them."""
    of_tasks = {key: value for key, value in keys.items() if ":" in key}
    values = preset.values | {key: value for key, value in keys.items() if ":" not in key}
    params, tasks = check_run(_nested(values), where, preset.tasks)
    files = {str(task_path(name)): name for name in tasks}
    for key, value in of_tasks.items():
        file, _, dotted = key.partition(":")
        if file not in files:
            raise UserError(f"{where}: {key}: found file {file!r}, allowed: {', '.join(files)}")
        task = tasks[files[file]]
        data = task.model_dump(mode="json", exclude_unset=True)
        _put(data, dotted, copy.deepcopy(value))
        tasks[files[file]] = parse(type(task), data, f"{where}: {file}")
    return Preset(preset.name, values, params, tasks, preset.task_keys | of_tasks)


def changes(preset: Preset, path: Path = PARAMS) -> list[Change]:
    """What applying `preset` to params.yaml would change, in the order of default.yaml."""
    there, done = _leaves(_load(path)), []
    for key, value in preset.values.items():
        if key not in there or there[key] != value:
            old, added = (one_line(there[key]), "") if key in there else (None, "++")
            done.append(Change(key, old, one_line(value), f"{added}{key}={override(value)}"))
    return done


def apply(preset: Preset, path: Path = PARAMS) -> list[Change]:
    """Rewrite params.yaml to hold `preset`: whole or not at all.
    Raises UserError: params.yaml is absent, or holds a key that no section has."""
    done, data = changes(preset, path), _load(path)
    for change in done:
        _set(data, change, path)
    text = _dump(data)
    if parse(Params, yaml.safe_load(text), str(path)) != preset.params:
        raise UserError(f"{path}: cannot be changed in place: one value stands for several keys (&, *)")
    if done:
        write_text(path, text)
    return done


def as_dvc_options(done: list[Change], *more: str) -> list[str]:
    """The same changes for one experiment: the words `dvc exp run -S key=value ...`, with `more` options."""
    return ["dvc", "exp", "run", *more, *(word for change in done for word in ("-S", change.option))]


def override(value: Any) -> str:
    """A value in Hydra's grammar, which `-S` takes: text that is more than a word is quoted."""
    if isinstance(value, list):
        return f"[{','.join(map(override, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{override(k)}:{override(v)}' for k, v in value.items())}}}"
    if not isinstance(value, str):
        return "null" if value is None else str(value)
    from hydra.core.override_parser.types import Quote, QuotedString

    return value if _WORD.fullmatch(value) else QuotedString(value, Quote.single).with_quotes()


def one_line(value: Any) -> str:
    """A value as YAML on one line; what stands in lines of its own becomes `[a, b]`."""
    around = CommentedSeq([list(value) if isinstance(value, list) else value])  # a list without its comments
    around.fa.set_flow_style()
    return _dump(around).strip()[1:-1]


def _split(name: str) -> tuple[str, str | None]:
    """`bert-base-r4` -> `bert-base`, `4`."""
    ranked = re.fullmatch(r"(.+)-r([1-9]\d*)", name)
    return (ranked[1], ranked[2]) if ranked else (name, None)


class _Representer(RoundTripRepresenter):
    """Writes `null` where ruamel.yaml writes nothing."""


_Representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
_YAML = YAML()
_YAML.preserve_quotes, _YAML.width, _YAML.Representer = True, 10**6, _Representer


def _load(path: Path) -> CommentedMap:
    """The file with all that is no data in it; lines end in a line feed."""
    read_yaml(path)  # tells of a file that is absent or no mapping
    try:
        return _YAML.load(path.read_text(encoding="utf-8"))
    except YAMLError as error:  # it is stricter: a key may not stand twice
        raise UserError(f"{path}: not valid YAML: {' '.join(str(getattr(error, 'problem', error)).split())}") from None


def _dump(data: Any) -> str:
    _YAML.dump(data, out := io.StringIO())
    return out.getvalue()


def _leaves(data: CommentedMap) -> dict[str, Any]:
    """Dotted key -> value that is no mapping."""
    leaves: dict[str, Any] = {}
    for key, value in data.items():
        below = isinstance(value, dict)
        leaves |= {f"{key}.{leaf}": v for leaf, v in _leaves(value).items()} if below else {key: value}
    return leaves


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        _put(nested, key, value)
    return nested


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; what stands in its way and is no mapping goes."""
    *sections, leaf = key.split(".")
    for section in sections:
        if not isinstance(data.get(section), dict):
            data[section] = {}
        data = data[section]
    data[leaf] = value


def _set(data: CommentedMap, change: Change, path: Path) -> None:
    """Change one value, or add its key at the end of its section."""
    *sections, leaf = change.key.split(".")
    where = data
    for section in sections:
        if where.get(section) is None:
            where[section] = CommentedMap()
        where = where[section]
        if not isinstance(where, CommentedMap):
            raise UserError(f"{path}: {section}: found {one_line(where)}, allowed: a mapping of keys")
    old, new = where.get(leaf), _YAML.load(change.new)
    if isinstance(old, CommentedSeq) and isinstance(new, list):  # in lines of its own it stays so
        last = old.ca.items.pop(len(old) - 1, None)  # what follows the list
        old[:] = list(new)
        old.ca.items.update({len(old) - 1: last} if last else {})
    else:
        where[leaf] = new
    if comment := where.ca.items.get(leaf, [None] * 3)[2]:
        comment.column = 0  # one space after the value
