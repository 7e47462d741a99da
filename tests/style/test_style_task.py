"""A style's file: every one of configs/tasks is valid; a mistake is one line with key, found and allowed."""

from typing import Any

import pytest
import yaml

from condpdiff.common.settings import parse
from condpdiff.common.task import TASKS, read_task
from condpdiff.style.task import RenderedSource, Task
from tests.messages import message_of

STYLES = [path.stem for path in sorted(TASKS.glob("*.yaml")) if "size" in yaml.safe_load(path.read_text())["data"]]


RENDERED = {"type": "rendered", "renderer": "chalk"}
PART = {"type": "rendered", "renderer": "image", "image": {"package": "p"}}

DRAWN = {"type": "drawn", "renderer": "grading"}
FOLDERS = {"type": "folders", "path": "mine", "folders": ["cards", "signs"]}
MEMBERS = {"unseen": 1, "tuning": 1, "train": 2}


def of(source: dict[str, Any]) -> dict[str, Any]:
    return {"size": 64, "source": source}


def test_embedded_styles_are_rendered_and_small_and_the_papers_are_of_full_size() -> None:
    assert set(STYLES) >= {"charcoal", "chalk", "swirls", "coral", "vangogh", "munch", "chalk-folder"}
    for name in STYLES:
        data = read_task(name, Task).data
        assert (data.size == 64) == isinstance(data.source, RenderedSource)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("data", of({"type": "render"}), "data.source.type: found 'render' (did you mean 'rendered'?)"),
        ("data", of(RENDERED | {"renderer": "fixed"}), "data.source.renderer: found 'fixed', allowed: with index"),
        ("data", of(RENDERED | {"index": 3}), "found 'chalk', allowed: without index"),
        ("data", of(RENDERED | {"renderer": "image"}), "data.source.renderer: found 'image', allowed: with image"),
        ("data", of(PART), "t.yaml: data.source.image: found package, allowed: package and member, or file"),
        ("data", of(RENDERED) | {"size": 60}, "data.size: found 60, allowed: a multiple of 8"),
        ("metrics", ["fid_lite0"], "found 'fid_lite0' (did you mean 'fd_lite0'?), allowed: 'fd_lite0', 'fd_lite0_96'"),
    ],
)
def test_wrong_key_is_one_line(key: str, value: Any, expected: str) -> None:
    task = {"data": of(RENDERED), "condition": {"description": "Chalk"}, "metrics": ["fd_lite0"]}
    assert expected in message_of(parse, Task, task | {"finetune": {"steps": 4, "lr": 0.001}, key: value}, "t.yaml")


@pytest.mark.parametrize(
    ("source", "members", "expected"),
    [
        (RENDERED, MEMBERS, "found unseen=1 tuning=1 train=2, allowed: null"),
        (DRAWN, None, "found None, allowed: as a family has them"),
        (FOLDERS, None, "found None, allowed: as a family has them"),
        (FOLDERS, MEMBERS, "found 4, allowed: as many as data.source.folders: 2"),
    ],
)
def test_members_are_a_family_s_and_as_many_as_its_folders(
    source: dict[str, Any], members: dict[str, int] | None, expected: str
) -> None:
    task = {"data": of(source), "condition": {"description": "Chalk"}, "metrics": ["fd_lite0"], "members": members}
    message = message_of(parse, Task, task | {"finetune": {"steps": 4, "lr": 0.001}}, "t.yaml")
    assert message.startswith("t.yaml: members: ") and expected in message


def test_text_task_is_refused_with_its_first_unknown_key() -> None:
    assert "unknown key" in message_of(read_task, "sst2", Task)
