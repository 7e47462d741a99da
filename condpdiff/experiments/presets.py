"""Presets: `configs/NAME.yaml` holds the keys of params.yaml that differ from `configs/default.yaml`.

Applying a preset sets params.yaml to default + preset, whatever it held before, by replacing the text of the
values that change and nothing else: comments, order and spacing stay. `NAME-rR` is preset NAME at rank R.
"""

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from condpdiff.common.errors import UserError, nearest
from condpdiff.common.settings import PARAMS, parse, read_yaml
from condpdiff.experiments.params import Params, load_tasks

CONFIGS = Path("configs")
DEFAULT = "default"
# The ranks of the paper's Table 1; `NAME-rR` takes any other rank as well.
TABLE_1_RANKS = {"bert-base": (1, 2, 4, 16), "roberta-base": (1, 2, 4), "deberta-base": (1, 2, 4)}
_RANKED = re.compile(r"(?P<stem>.+)-r(?P<rank>[1-9]\d*)")


@dataclass(frozen=True)
class Preset:
    """A whole run: default.yaml, with the preset's own keys in place of its."""

    name: str
    values: dict[str, str]
    """Dotted key of params.yaml -> the value's YAML text, as it stands in the file of configs/."""
    params: Params
    tasks: dict[str, Any]


@dataclass(frozen=True)
class Change:
    """One key that applying a preset changes; texts are YAML, on one line."""

    key: str
    old: str | None
    """None: the key is not in params.yaml."""
    new: str


def preset_names() -> list[str]:
    """Every preset's name, `default` first, ranks written out."""
    stems = sorted(_stems(), key=lambda stem: (stem != DEFAULT, stem in TABLE_1_RANKS, stem))
    return [name for stem in stems for name in _with_ranks(stem)]


def about(name: str) -> str:
    """What a preset is: the comment that its file begins with (its first line)."""
    stem, rank = _split(name)
    first = (CONFIGS / f"{stem}.yaml").read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").rstrip(".") + (f"; rank {rank}" if rank else "")


def load_preset(name: str) -> Preset:
    """Read a preset and check the whole run that it makes, with the files of its tasks.

    Raises:
        UserError: no such preset (names the nearest one), or the first thing wrong in its file.
    """
    stem, rank = _split(name)
    path = CONFIGS / f"{stem}.yaml"
    if stem not in _stems():
        known = preset_names()
        raise UserError(f"unknown preset {name!r}{nearest(name, known)}; allowed: {', '.join(known)}")
    default = CONFIGS / f"{DEFAULT}.yaml"
    values = _texts(default)
    parse(Params, _nested(values), str(default))  # by itself, so that an error names the file that it is in
    values |= _texts(path)
    if rank:
        values |= {"collect.rank": rank, "collect.alpha": f"{rank}.0"}
    params = parse(Params, _nested(values), str(path))
    return Preset(name, values, params, load_tasks(params))


def with_keys(preset: Preset, keys: Mapping[str, Any], where: str) -> Preset:
    """A preset with other values of some keys, checked as a whole; `where` names them in an error.

    Raises:
        UserError: no such key, or a value that may not stand there.
    """
    values = preset.values | {key: _as_yaml(value) for key, value in keys.items()}
    params = parse(Params, _nested(values), where)
    return Preset(preset.name, values, params, preset.tasks if params.tasks == [*preset.tasks] else load_tasks(params))


def changes(preset: Preset, path: Path = PARAMS) -> list[Change]:
    """What applying `preset` to params.yaml would change, in the order of default.yaml."""
    text = _read(path)
    leaves = _leaves(text, path)
    found = []
    for key, new in preset.values.items():
        old = None if key not in leaves else _text_of(text, leaves[key][1])
        if old is None or _plain(old) != _plain(new):
            found.append(Change(key, old, new))
    return found


def apply(preset: Preset, path: Path = PARAMS) -> list[Change]:
    """Rewrite params.yaml to hold `preset`: whole or not at all.

    Raises:
        UserError: params.yaml is absent, holds a key that no section has, or is written in a way
            (anchors, sections in braces) in which a key cannot be replaced by itself.
    """
    text = _read(path)
    done = changes(preset, path)
    try:
        for change in done:
            text = _set(text, change.key, change.new, path)
        data = yaml.safe_load(text)
    except yaml.YAMLError:  # an alias whose anchor stood in a replaced value
        data = {}
    if not data or parse(Params, data, str(path)) != preset.params:
        raise UserError(
            f"{path}: cannot be changed in place; write plain `key: value` lines, without anchors or braces"
        )
    if done:
        _write(path, text)
    return done


def as_dvc_options(done: list[Change]) -> str:
    """The same changes for one experiment: `dvc exp run -S key=value ...`."""
    return "dvc exp run" + "".join(f" -S {shlex.quote(f'{c.key}={c.new}')}" for c in done)


def _stems() -> set[str]:
    return {path.stem for path in CONFIGS.glob("*.yaml")}


def _with_ranks(stem: str) -> list[str]:
    return [f"{stem}-r{rank}" for rank in TABLE_1_RANKS[stem]] if stem in TABLE_1_RANKS else [stem]


def _split(name: str) -> tuple[str, str | None]:
    """`bert-base-r4` -> `bert-base`, `4`."""
    ranked = _RANKED.fullmatch(name)
    return (ranked["stem"], ranked["rank"]) if ranked else (name, None)


def _texts(path: Path) -> dict[str, str]:
    """Dotted key -> YAML text of its value."""
    text = _read(path)
    return {key: _text_of(text, value) for key, (_, value) in _leaves(text, path).items()}


def _nested(values: dict[str, str]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, text in values.items():
        section, _, leaf = key.partition(".")
        if leaf:
            nested.setdefault(section, {})[leaf] = yaml.safe_load(text)
        else:
            nested[section] = yaml.safe_load(text)
    return nested


def _as_yaml(value: Any) -> str:
    """Data -> its YAML text, on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")


def _leaves(text: str, path: Path) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """Dotted key -> the nodes of its key and value; a value is whatever stands two levels down, or no mapping."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: found no mapping, allowed: a mapping of keys")
    leaves: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in root.value:
        if isinstance(value, yaml.MappingNode):
            leaves |= {f"{key.value}.{below.value}": (below, leaf) for below, leaf in value.value}
        else:
            leaves[key.value] = (key, value)
    return leaves


def _text_of(text: str, value: yaml.Node) -> str:
    """A value's text; a list in lines of its own becomes `[a, b]`."""
    if _is_block(value):
        return f"[{', '.join(_text_of(text, item) for item in value.value)}]"
    return " ".join(text[value.start_mark.index : value.end_mark.index].split()) or "null"


def _set(text: str, key: str, new: str, path: Path) -> str:
    """Replace the text of one value; a key that is not there comes at the end of its section."""
    leaves = _leaves(text, path)
    if key not in leaves:
        return _insert(text, key, new, leaves, path)
    name, value = leaves[key]
    start, end = value.start_mark.index, _end(value)
    if start < end and not _is_block(value):
        return text[:start] + new + text[end:]
    # A list in lines of its own, or `key:` with nothing after it: the value goes on the key's line, before its comment.
    colon = text.index(":", name.end_mark.index) + 1
    comment = text[colon:start].partition("\n")[0].rstrip("\r")
    return f"{text[:colon]} {new}" + (text[colon:] if start == end else comment + text[end:])


def _insert(text: str, key: str, new: str, leaves: Mapping[str, tuple[yaml.Node, yaml.Node]], path: Path) -> str:
    """Add a key at the end of its section, or of the file."""
    newline = "\r\n" if "\r\n" in text else "\n"
    section, _, leaf = key.partition(".")
    if leaf and section in leaves:
        raise UserError(f"{path}: {section}: found {_text_of(text, leaves[section][1])}, allowed: a mapping of keys")
    siblings = [nodes for other, nodes in leaves.items() if other.startswith(f"{section}.")]
    if not siblings:
        entry = f"{section}:{newline}  {leaf}: {new}" if leaf else f"{section}: {new}"
        return text.rstrip() + newline + entry + newline
    last_key, last_value = siblings[-1]
    line_end = text.find("\n", _end(last_value)) + 1
    before, after = (text[:line_end], text[line_end:]) if line_end else (text + newline, "")
    return f"{before}{' ' * last_key.start_mark.column}{leaf}: {new}{newline}{after}"


def _is_block(value: yaml.Node) -> bool:
    return isinstance(value, yaml.SequenceNode) and not value.flow_style


def _end(value: yaml.Node) -> int:
    """Where a value's text ends; PyYAML ends a list in lines of its own only at the next key."""
    return _end(value.value[-1]) if _is_block(value) else value.end_mark.index


def _plain(text: str) -> Any:
    """A value's text as data, numbers as floats: `1e-05` is a string in YAML 1.1, and a number in a section."""
    value = yaml.safe_load(text)
    return [_number(item) for item in value] if isinstance(value, list) else _number(value)


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _read(path: Path) -> str:
    """The file's text with its own line ends, once it is known to be a YAML mapping."""
    read_yaml(path)
    return path.read_bytes().decode("utf-8")


def _write(path: Path, text: str) -> None:
    """Write beside the file and rename over it: a full disk or an interrupt leaves the old file."""
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
        shutil.copymode(path, partial)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
