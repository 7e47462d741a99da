"""A family's file: every one of configs/families is valid; a mistake is one line with key, found and allowed."""

from typing import Any

import pytest
import yaml

from condpdiff.common.settings import parse
from condpdiff.common.task import FAMILIES, read_task
from condpdiff.style.task import FoldersSource, Task
from tests.messages import message_of

STYLES = [path.stem for path in sorted(FAMILIES.glob("*.yaml")) if "size" in yaml.safe_load(path.read_text())["data"]]
DRAWN = {"type": "drawn", "renderer": "grading"}
FOLDERS = {"type": "folders", "path": "mine", "folders": ["cards", "signs"]}
MEMBERS = {"unseen": 1, "tuning": 1, "train": 2}
FILE = {
    "data": {"size": 64, "source": DRAWN},
    "condition": {"description": "Chalk"},
    "metrics": ["fd_lite0"],
    "finetune": {"steps": 4, "lr": 0.001},
    "members": MEMBERS,
}


def test_families_are_small_but_for_the_user_s_own_of_full_size() -> None:
    assert {"gradings", "strokes", "pictures", "own-styles"} <= set(STYLES)
    for name in STYLES:
        task = read_task(name, Task)
        own = isinstance(task.data.source, FoldersSource) and task.data.source.package is None
        assert task.data.size == (512 if own else 64)
    assert "unknown key" in message_of(read_task, "sst2", Task)  # of texts


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("data", {"size": 64, "source": {"type": "draw"}}, "data.source.type: found 'draw' (did you mean 'drawn'?)"),
        ("data", {"size": 64, "source": DRAWN | {"renderer": "prints"}}, "renderer: found 'prints' (did you mean 'pr"),
        ("data", {"size": 60, "source": DRAWN}, "data.size: found 60, allowed: a multiple of 8"),
        ("data", {"size": 64, "source": FOLDERS}, "members: found 4, allowed: as many as data.source.folders: 2"),
        ("members", MEMBERS | {"unseen": 24}, "members: found 27, allowed: at most 26 (data.source.renderer: fixed)"),
        ("metrics", ["rmse"], "metrics[0]: found 'rmse', allowed: 'fd_lite0' or 'fid'"),
        ("members", None, "members: found None, allowed: a mapping of keys"),
    ],
)
def test_wrong_key_is_one_line(key: str, value: Any, expected: str) -> None:
    fixed = {"data": {"size": 64, "source": DRAWN | {"renderer": "fixed"}}} if "fixed" in expected else {}
    message = message_of(parse, Task, FILE | fixed | {key: value}, "t.yaml")
    assert message.startswith("t.yaml: ") and expected in message
