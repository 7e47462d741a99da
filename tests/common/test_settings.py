"""Reading sections: the error line names the file, the key, what was found and what is allowed."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from condpdiff.common.settings import Section, parse, section, tasks
from tests.messages import message_of


class A(Section):
    type: Literal["a"]
    member: str


class B(Section):
    type: Literal["b"]


class Toy(Section):
    steps: PositiveInt
    noise: PositiveFloat = 1.0
    method: Literal["task", "batch", "none"] = "task"
    layers: Literal["all"] | tuple[int, int] = "all"
    channels: tuple[PositiveInt, PositiveInt] = (1, 2)
    source: Annotated[A | B, Field(discriminator="type")] | None = None

    @model_validator(mode="after")
    def _rule(self) -> "Toy":
        if self.noise > self.steps:
            raise ValueError(f"noise: {self.noise}, allowed: at most steps = {self.steps}")
        return self


class Outer(Section):
    toy: Toy


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("stps", 3, "unknown key 'toy.stps' (did you mean 'steps'?); allowed: channels, layers, "),
        ("steps", 0, "toy.steps: found 0, allowed: greater than 0"),
        ("steps", "ten", "toy.steps: found 'ten', allowed: a valid integer"),
        ("steps", None, "toy.steps: found None, allowed: a valid integer"),
        ("steps", True, "toy.steps: found True, allowed: no true or false"),
        ("noise", float("inf"), "toy.noise: found inf, allowed: a finite number"),
        ("noise", 9, "toy.noise: found 9.0, allowed: at most steps = 4"),
        ("method", "taks", "toy.method: found 'taks' (did you mean 'task'?), allowed: 'task', 'batch' or 'none'"),
        ("layers", "al", "toy.layers: found 'al' (did you mean 'all'?), allowed: 'all' or a valid list"),
        ("layers", [0, "x"], "toy.layers: found [0, 'x'], allowed: 'all' or a valid integer"),
        ("channels", [1], "toy.channels: found [1], allowed: more values"),
        ("source", {"type": "c"}, "toy.source.type: found 'c', allowed: 'a', 'b'"),
        ("source", {"member": "x"}, "key 'toy.source.type' is missing"),
        ("source", {"type": "a"}, "key 'toy.source.member' is missing"),
        ("source", {"type": "a", "membr": "x"}, "unknown key 'toy.source.membr' (did you mean 'member'?)"),
    ],
)
def test_error_is_one_line_that_names_file_key_found_and_allowed(key: str, value: Any, line: str) -> None:
    assert message_of(parse, Outer, {"toy": {"steps": 4, key: value}}, "f.yaml").startswith(f"f.yaml: {line}")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"", "found nothing, allowed: a mapping"),
        (b"a: [1\n", "not valid YAML"),
        (b"a: \xff\n", "not valid YAML"),
        (b"other: 1\n", "section 'toy' is missing or empty"),
    ],
)
def test_unreadable_file_is_one_line(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_bytes(content)
    message = message_of(section, "toy", Toy, path)
    assert message.startswith(f"{path}: ") and says in message


def test_tasks_are_a_list(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    for text in ("a: 1", "tasks: movies", "tasks: []", "tasks:"):
        path.write_text(f"{text}\n")
        assert re.search(": tasks: found .*, allowed: a list", message_of(tasks, path))
    path.write_text("tasks: [b, a]\n")
    assert tasks(path) == ["b", "a"]
