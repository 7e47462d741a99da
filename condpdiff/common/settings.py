"""How a section of params.yaml becomes a checked, typed object."""

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from condpdiff.common.errors import UserError, nearest

PARAMS = Path("params.yaml")


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values do not change after loading.

    Numbers may come as strings: YAML 1.1 reads `1e-05` as a string, and
    `dvc exp run -S ae.noise=0.00001` writes just that.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_booleans(cls, data: Any) -> Any:
        """YAML reads `yes`, `no`, `on` and `off` as booleans, and pydantic would take true for 1."""
        for key, value in data.items() if isinstance(data, dict) else ():
            if isinstance(value, bool) and key in cls.model_fields:
                raise ValueError(f"{key}: {value}, allowed: no true or false (quote a word such as yes or no)")
        return data


S = TypeVar("S", bound=BaseModel)


def parse(model: type[S], data: Any, where: str, prefix: str = "") -> S:
    """Check `data` against `model`; `prefix` is the key under which `data` stands in the file `where`.

    Raises:
        UserError: one line that names `where`, the key, what was found and what is allowed.
    """
    if data is None:
        raise UserError(f"{where}: section {prefix!r} is missing or empty" if prefix else f"{where}: nothing in it")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(_explain(error, model, data, where, prefix)) from None


def section(name: str, model: type[S], path: Path = PARAMS) -> S:
    """Read one top-level section of params.yaml."""
    return parse(model, read_yaml(path).get(name), str(path), name)


DOMAINS = ("text", "style")


def domain(path: Path = PARAMS) -> str:
    """What the run's tasks are.

    Raises:
        UserError: there is no such domain.
    """
    found = read_yaml(path).get("domain")
    if found not in DOMAINS:
        raise UserError(f"{path}: domain: found {found!r}, allowed: {' or '.join(DOMAINS)}")
    return str(found)


def tasks(path: Path = PARAMS) -> list[str]:
    """The names of the run's tasks, in the order of params.yaml.

    Raises:
        UserError: the key is missing or holds something else than a list.
    """
    names = read_yaml(path).get("tasks")
    if not isinstance(names, list) or not names:
        raise UserError(f"{path}: tasks: found {names!r}, allowed: a list of names of configs/tasks/")
    return [str(name) for name in names]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        UserError: the file is absent, not YAML, or not a mapping.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise UserError(f"{path}: found {found}, allowed: a mapping of keys")
    return data


def _explain(error: ValidationError, model: type[BaseModel], data: Any, where: str, prefix: str) -> str:
    """The first error, unknown keys first: a misspelt key also makes the right one missing."""
    errors = error.errors()
    errors.sort(key=lambda e: e["type"] != "extra_forbidden")
    first = errors[0]
    kind, context = first["type"], first.get("ctx", {})
    path, found, is_choice = _walk(data, first["loc"])
    key = _dotted([prefix, *path])
    if kind == "extra_forbidden":
        allowed = sorted(_fields_at(model, first["loc"][:-1]))
        return f"{where}: unknown key {key!r}{nearest(str(path[-1]), allowed)}; allowed: {', '.join(allowed)}"
    if kind == "missing" and isinstance(found, dict):
        return f"{where}: key {_dotted([prefix, *path, first['loc'][-1]])!r} is missing"
    if kind == "union_tag_not_found":
        return f"{where}: key {key + '.type'!r} is missing"
    if kind == "union_tag_invalid":
        key, found, allowed_text = f"{key}.type", context["tag"], context["expected_tags"]
    elif kind == "value_error" and isinstance(first["input"], dict):
        return _explain_rule(str(context["error"]), found, where, [prefix, *path])
    else:
        # Where several types may stand (`auto` or a list), each of them reports an error of its own.
        ways = [e for e in errors if is_choice and _walk(data, e["loc"])[0][: len(path)] == path] or [first]
        allowed_text = " or ".join(dict.fromkeys(_allowed(e, data, path) for e in ways))
    hint = nearest(found, re.findall("'([^']+)'", allowed_text)) if isinstance(found, str) else ""
    return f"{where}: {key + ': ' if key else ''}found {_short(found)}{hint}, allowed: {allowed_text}"


def _explain_rule(message: str, found: Any, where: str, path: list[Any]) -> str:
    """A rule between keys: its message begins with the key that it is about."""
    name, _, rest = message.partition(": ")
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            return f"{where}: {_dotted(path) + ': ' if any(path) else ''}{message}"
        found = found[part]
    _, says_allowed, allowed = rest.partition(", allowed: ")  # "x: 5, allowed: at most 4" also says what was found
    says = says_allowed + allowed if says_allowed else f": {rest}"
    return f"{where}: {_dotted([*path, name])}: found {_short(found)}{says}"


def _walk(data: Any, location: tuple[int | str, ...]) -> tuple[list[Any], Any, bool]:
    """pydantic's location of an error -> the keys in the file, the value there, and whether types were tried in turn.

    Between the keys, a location names the member of a union that was tried: `('layers', 'tuple[int, int]', 1)`.
    """
    path: list[Any] = []
    is_choice = False
    tagged = False
    for part in location:
        if isinstance(data, dict) and data.get("type") == part and not tagged:
            tagged = True  # a discriminated union: its tag stands in the location
            continue
        if isinstance(data, dict) and part in data or isinstance(data, list) and part in range(len(data)):
            path.append(part)
            data = data[part]  # type: ignore[index]
            tagged = False
        else:
            is_choice = is_choice or isinstance(part, str)
    return path, data, is_choice


def _allowed(error: Any, data: Any, path: list[Any]) -> str:
    """What could stand there, in words; an error below `path` says in place of what."""
    kind, context = error["type"], error.get("ctx", {})
    here, found, _ = _walk(data, error["loc"])
    if kind == "missing" and isinstance(found, list):
        return f"a list of {error['loc'][-1] + 1} or more values"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "a mapping of keys"
    if kind == "too_short":
        return f"at least {context['min_length']} of them"
    if kind == "too_long":
        return f"at most {context['max_length']} of them"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ").replace("tuple", "list")
    message = re.sub(", (unable to parse|got a number).*", "", message)
    return message if here == path else f"{message} in place of {_short(found)}"


def _dotted(path: list[Any]) -> str:
    """`normalize.layers[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path if part != "").lstrip(".")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """Names of the keys that may stand at `location` below `model`."""
    models: list[type[BaseModel]] = [model]
    for part in location:
        if isinstance(part, int):
            continue
        below: list[type[BaseModel]] = []
        for m in models:
            if part in m.model_fields and _tag(m) != part:
                below += _models_in(m.model_fields[part].annotation)
            elif _tag(m) == part:  # a discriminated union puts its tag into the location
                below.append(m)
        models = below
    return {name for m in models for name in m.model_fields}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in getattr(annotation, "__args__", ()) for m in _models_in(arg)]


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("type")
    return None if field is None else str(field.annotation.__args__[0])  # type: ignore[union-attr]
