"""A style's file: every one of configs/tasks is valid; a mistake is one line with key, found and allowed."""

from typing import Any

import pytest
import yaml

from condpdiff.common.errors import UserError
from condpdiff.common.settings import parse
from condpdiff.common.task import TASKS, read_task
from condpdiff.style.task import RenderedSource, Task

STYLES = [path.stem for path in sorted(TASKS.glob("*.yaml")) if "size" in yaml.safe_load(path.read_text())["data"]]


def content(source: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    data = {"size": 64, "source": source or {"type": "rendered", "renderer": "chalk"}}
    task = {
        "data": data | changes.pop("data", {}),
        "condition": {"description": "Chalk"},
        "metrics": ["fd_lite0"],
        "finetune": {"steps": 4, "lr": 0.001},
    }
    return task | changes


def message_of(task: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        parse(Task, task, "t.yaml")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_embedded_styles_are_rendered_and_small_and_the_papers_are_of_full_size() -> None:
    assert set(STYLES) >= {"charcoal", "chalk", "swirls", "coral", "vangogh", "munch", "chalk-folder"}
    for name in STYLES:
        data = read_task(name, Task).data
        assert (data.size == 64) == isinstance(data.source, RenderedSource)


def test_numbers_of_the_condition_have_defaults() -> None:
    condition = parse(Task, content(), "t.yaml").condition
    assert (condition.images, condition.draws, condition.seed) == (8, 8, 0)


@pytest.mark.parametrize(
    "source",
    [
        {"type": "rendered", "renderer": "fixed", "index": 25},
        {"type": "rendered", "renderer": "image", "image": {"file": "style.png"}},
        {"type": "rendered", "renderer": "image", "image": {"package": "scikit-image", "member": "skimage/data/a.png"}},
        {"type": "folder", "path": "data/mine", "validation": 0.5},
        {"type": "hub", "dataset": "a/b", "filter": {"column": "artist", "value": "c"}, "caption": "text"},
    ],
)
def test_every_source_can_be_given(source: dict[str, Any]) -> None:
    assert parse(Task, content(source), "t.yaml").data.source.type == source["type"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"type": "render"}, "t.yaml: data.source.type: found 'render' (did you mean 'rendered'?)"),
        ({"type": "rendered", "renderer": "chalc"}, "data.source.renderer: found 'chalc' (did you mean 'chalk'?)"),
        ({"type": "rendered", "renderer": "fixed", "index": 26}, "data.source.index: found 26, allowed: less than or"),
        ({"type": "rendered", "renderer": "fixed"}, "data.source.renderer: found 'fixed', allowed: with index"),
        ({"type": "rendered", "renderer": "chalk", "index": 3}, "found 'chalk', allowed: without index"),
        ({"type": "rendered", "renderer": "image"}, "data.source.renderer: found 'image', allowed: with image"),
        (
            {"type": "rendered", "renderer": "image", "image": {"package": "p"}},
            "t.yaml: data.source.image: found package, allowed: package and member, or file",
        ),
        ({"type": "folder"}, "t.yaml: key 'data.source.path' is missing"),
        ({"type": "folder", "path": "a", "validation": 1}, "data.source.validation: found 1, allowed: less than 1"),
        ({"type": "hub", "dataset": "a/b", "filter": {"colum": "x", "value": "y"}}, "(did you mean 'column'?)"),
    ],
)
def test_wrong_source_is_one_line(source: dict[str, Any], expected: str) -> None:
    assert expected in message_of(content(source))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": {"size": 60}}, "t.yaml: data.size: found 60, allowed: a multiple of 8"),
        (
            {"metrics": ["fid_lite0"]},
            "found 'fid_lite0' (did you mean 'fd_lite0'?), allowed: 'fd_lite0', 'fd_lite0_96' or 'fid'",
        ),
        ({"metrics": []}, "t.yaml: metrics: found [], allowed: at least 1 of them"),
        (
            {"condition": {"description": "x", "images": 0}},
            "t.yaml: condition.images: found 0, allowed: greater than 0",
        ),
        ({"finetune": {"steps": 1, "lr": 1, "head_lr": 1}}, "t.yaml: unknown key 'finetune.head_lr'"),
    ],
)
def test_wrong_key_is_one_line(changes: dict[str, Any], expected: str) -> None:
    assert expected in message_of(content(**changes))


def test_text_task_is_refused_with_its_first_unknown_key() -> None:
    with pytest.raises(UserError, match="unknown key"):
        read_task("sst2", Task)
