"""How a section of params.yaml becomes a checked, typed object, and how a mistake in it becomes one line."""

import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from condpdiff.common.errors import UserError, nearest

PARAMS = Path("params.yaml")
DOMAINS = ("text", "style")
_BRIEF = reprlib.Repr()  # a few bytes of YAML's aliases can stand for gigabytes
_BRIEF.maxlevel, _BRIEF.maxlist, _BRIEF.maxdict = 3, 30, 30
_BRIEF.maxstring, _BRIEF.maxlong, _BRIEF.maxother = 99, 99, 99


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values do not change after loading.

    Numbers may come as strings: YAML 1.1 reads `1e-05` as a string, and `dvc exp run -S ae.noise=0.00001` writes just
    that. A rule between keys is a validator that raises `ValueError("key: value, allowed: what")`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, data: Any) -> Any:
        """A misspelt key comes before the right one that is missing, and is told with the keys that there are."""
        for key, value in data.items() if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                allowed = sorted(cls.model_fields)
                says = f"{nearest(str(key), allowed)}; allowed: {', '.join(allowed)}"
                raise PydanticCustomError("unknown_key", "unknown key", {"key": key, "says": says})
            # YAML's yes, no, on and off; pydantic would take true for 1
            if isinstance(value, bool) and cls.model_fields[key].annotation is not bool:
                raise ValueError(f"{key}: {value}, allowed: no true or false (quote a word such as yes or no)")
        return data


S = TypeVar("S", bound=BaseModel)


def parse(model: type[S], data: Any, where: str, prefix: str = "") -> S:
    """Check `data` against `model`; `prefix` is the key under which `data` stands in the file `where`. A UserError
    names `where`, the key, what was found and what is allowed."""
    if data is None:
        raise UserError(f"{where}: section {prefix!r} is missing or empty" if prefix else f"{where}: nothing in it")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        try:
            said = _explain(error, data, prefix)
        except ValueError:  # a key of half a surrogate pair, or a number of thousands of digits: no text has them
            said = "found what can't be shown, allowed: text of Unicode, and numbers of few digits"
        raise UserError(f"{where}: {said}") from None


def section(name: str, model: type[S], path: Path = PARAMS) -> S:
    """Read one top-level section of params.yaml."""
    return parse(model, read_yaml(path).get(name), str(path), name)


def domain(path: Path = PARAMS) -> str:
    """What the run's tasks are; a UserError where there is no such domain."""
    found = read_yaml(path).get("domain")
    if found not in DOMAINS:
        raise UserError(f"{path}: domain: found {found!r}, allowed: {' or '.join(DOMAINS)}")
    return str(found)


def tasks(path: Path = PARAMS) -> list[str]:
    """The names of the run's tasks, in the order of params.yaml; a UserError where they are no list."""
    names = read_yaml(path).get("tasks")
    if not isinstance(names, list) or not names:
        raise UserError(f"{path}: tasks: found {names!r}, allowed: a list of names of configs/tasks/")
    return [str(name) for name in names]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises UserError: the file is absent, not YAML, or not a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
        if re.search(r"\\(u|U0000)[dD][89a-fA-F]", text):
            raise ValueError("half a surrogate pair, which no file can hold")
        data = yaml.safe_load(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # a value that does not fit its tag raises half a dozen kinds
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise UserError(f"{path}: found {found}, allowed: a mapping of keys")
    return data


def check_choices(run: Section, choices: Mapping[str, Sequence[str]]) -> None:
    """Raise a ValueError unless each key `section.name` of a whole run is one of its choices."""
    for key, allowed in choices.items():
        if (found := value_of(run, key)) not in allowed:
            raise ValueError(f"{key}: {found!r}, allowed: {', '.join(allowed)} (domain: {value_of(run, 'domain')})")


def value_of(run: Any, key: str) -> Any:
    """The value of a dotted key of a section, or of a mapping; None where there is none."""
    for part in key.split("."):
        run = run.get(part) if isinstance(run, dict) else getattr(run, part, None)
    return run


def rule_line(message: str, prefix: str = "") -> str:
    """What a rule says of a key below `prefix`, `key: value, allowed: what`, as the line of an error."""
    key, _, rest = message.partition(": ")
    if not re.fullmatch(r"[\w.]+", key):  # it is about the whole of what stands there
        return f"{prefix}: {message}" if prefix else message
    return f"{_dotted([prefix, key])}: {'found ' if ', allowed: ' in rest else ''}{rest}"


def _explain(error: ValidationError, data: Any, prefix: str) -> str:
    """The first error: the key, what was found there, and what pydantic or the section says of it."""
    errors = [(*_place(data, e["loc"]), e) for e in error.errors()]
    path, found, first = errors[0]
    key, kind, context = _dotted([prefix, *path]), first["type"], first.get("ctx", {})
    if kind == "unknown_key":
        return f"unknown key {_dotted([key, str(context['key'])])!r}{context['says']}"
    if kind == "union_tag_not_found" or (kind == "missing" and isinstance(found, dict)):
        missing = "type" if kind == "union_tag_not_found" else first["loc"][-1]
        return f"key {_dotted([key, missing])!r} is missing"
    if kind == "value_error" and isinstance(found, dict):
        return rule_line(str(context["error"]), key)
    if kind == "union_tag_invalid":
        key, found, allowed = f"{key}.type", context["tag"], context["expected_tags"]
    else:  # where several types may stand (`auto` or a list), each of them reports an error of its own
        allowed = " or ".join(dict.fromkeys(_allowed(e) for at, _, e in errors if at == path))
    hint = nearest(found, re.findall("'([^']+)'", allowed)) if isinstance(found, str) else ""
    if kind == "string_type" and not isinstance(found, dict | list):  # YAML 1.1 has taken a word for something else
        allowed += " (quote words such as yes, no, on, off, null, and numbers: 'no')"
    text = _BRIEF.repr(found)
    text = text if len(text) <= 80 else text[:77] + "..."
    return f"{key + ': ' if key else ''}found {text}{hint}, allowed: {allowed}"


def _place(data: Any, location: tuple[int | str, ...]) -> tuple[list[int | str], Any]:
    """pydantic's location of an error -> the keys that lead there in the file, and what stands there.

    A location also names the member of a union that was tried: by its tag, which is passed over (`type: package`), or
    by its type, where the way ends: `('layers', 'tuple[int, int]', 1)`.
    """
    path: list[int | str] = []
    tagged = False
    for part in location:
        if isinstance(data, dict) and data.get("type") == part and not tagged:
            tagged = True
        elif (isinstance(data, dict) and part in data) or (isinstance(data, list) and part in range(len(data))):
            path.append(part)
            data, tagged = data[part], False  # type: ignore[index]
        else:
            break
    return path, data


def _allowed(error: Any) -> str:
    """What could stand there, by pydantic's message."""
    words = {"too_short": "at least {min_length} of them", "too_long": "at most {max_length} of them"}
    words |= {"missing": "more values", "model_type": "a mapping of keys", "dict_type": "a mapping of keys"}
    if error["type"] in words:
        return words[error["type"]].format(**error.get("ctx", {}))
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ").replace("tuple", "list")
    return re.sub(", (unable to parse|got a number).*", "", message)


def _dotted(path: Sequence[int | str]) -> str:
    """`normalize.layers[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path if part != "").lstrip(".")
