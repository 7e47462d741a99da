"""Families: which of their members a run trains on, chooses on and reports."""

import unicodedata
from pathlib import Path

import pytest

from condpdiff.common.settings import parse
from condpdiff.common.task import Members, grouped, members, save_members, task_path
from tests.messages import message_of

GRADING, STROKES = Members(unseen=2, tuning=1, train=3), Members(unseen=2, tuning=1, train=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A run of a task and two families, as check-params leaves it; one family is held out whole."""
    save_members(tmp_path / "members.json", ["grading", "films", "strokes"], [GRADING, None, STROKES])
    return tmp_path / "members.json"


def test_unseen_come_first_then_tuning_then_train_whatever_the_order_asked() -> None:
    found = Members(unseen=2, tuning=1, train=3)
    assert found.total == 6
    assert [found.of(tier) for tier in ("unseen", "tuning", "train")] == [[0, 1], [2], [3, 4, 5]]
    assert found.of("train", "unseen") == [3, 4, 5, 0, 1] and found.of() == []
    tiers = ("unseen", "tuning", "train")
    more = Members(unseen=2, tuning=1, train=30)  # to train on, which leaves the others alone
    assert more.of(*tiers)[:6] == list(range(6)) == more.trained_on(3).of(*tiers)
    assert found.trained_on(None) == found.trained_on(9) == found


def test_members_of_a_run_are_its_tasks_and_those_of_its_families(path: Path) -> None:
    assert members("train", path=path) == ["grading/3", "grading/4", "grading/5", "films"]
    assert grouped("unseen", path=path) == {
        "grading": ["grading/0", "grading/1"], "films": ["films"], "strokes": ["strokes/0", "strokes/1"],
    }  # fmt: skip
    assert grouped("train", "tuning", path=path)["grading"] == ["grading/3", "grading/4", "grading/5", "grading/2"]


def test_members_that_are_no_numbers_and_none_at_all_are_one_line(tmp_path: Path) -> None:
    said = message_of(parse, Members, {"unseen": 2, "tuning": -1, "train": 3}, "task.yaml", "members")
    assert said == "task.yaml: members.tuning: found -1, allowed: greater than or equal to 0"
    assert message_of(members, "train", path=tmp_path / "members.json").endswith("members.json: no such file")


def test_file_is_found_in_either_normal_form_an_unknown_name_gets_the_nearest_and_odd_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("configs/families/grading.yaml", "configs/tasks/films.yaml"):
        Path(path).parent.mkdir(parents=True)
        Path(path).touch()
    assert task_path("grading") == Path("configs/families/grading.yaml")
    assert task_path("films") == Path("configs/tasks/films.yaml")
    said = "params.yaml: tasks: unknown task 'gradin' (did you mean 'grading'?); allowed: films, grading"
    assert message_of(task_path, "gradin") == said
    for name in ("R&D", "my task", "a/b", "..", "-a", "a$b", ""):
        said = f"params.yaml: tasks: found {name!r}, allowed: names of letters, digits, '-'"
        assert message_of(task_path, name).startswith(said)
    for name in ("a-b_c.d2", unicodedata.normalize("NFD", "größe")):
        Path(f"configs/tasks/{name}.yaml").touch()
        assert task_path(unicodedata.normalize("NFC", name)).is_file()
