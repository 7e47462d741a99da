"""Families: which of their members a run trains on, chooses on and reports."""

from pathlib import Path

import pytest

from condpdiff.common.errors import UserError
from condpdiff.common.files import write_json
from condpdiff.common.settings import parse
from condpdiff.common.task import Members, members, members_of, task_path


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a task and two families, as check-params leaves it."""
    monkeypatch.chdir(tmp_path)
    write_json(Path("params.yaml"), {"tasks": ["films", "grading", "strokes"]})
    for family, train in (("grading", 3), ("strokes", 0)):
        folder = tmp_path / "data/settings" / family
        folder.mkdir(parents=True)
        write_json(folder / "members.json", {"unseen": 2, "tuning": 1, "train": train})
    return tmp_path / "data/settings"


def test_unseen_come_first_then_tuning_then_train_whatever_the_order_asked() -> None:
    found = Members(unseen=2, tuning=1, train=3)
    assert found.total == 6
    assert [found.of(tier) for tier in ("unseen", "tuning", "train")] == [[0, 1], [2], [3, 4, 5]]
    assert found.of("train", "unseen") == [3, 4, 5, 0, 1] and found.of() == []


def test_more_members_to_train_on_leave_the_others_alone() -> None:
    few, many = Members(unseen=2, tuning=1, train=3), Members(unseen=2, tuning=1, train=30)
    assert few.of("unseen", "tuning") == many.of("unseen", "tuning")
    assert few.of("train") == many.of("train")[:3]


def test_members_of_a_run_are_its_tasks_and_those_of_its_families() -> None:
    assert members("train") == ["films", "grading/3", "grading/4", "grading/5"]  # one family is held out whole
    assert members("unseen", "tuning") == ["grading/0", "grading/1", "grading/2", "strokes/0", "strokes/1", "strokes/2"]
    assert members_of("strokes", "unseen") == ["strokes/0", "strokes/1"]


def test_a_task_is_its_own_one_member_to_train_on() -> None:
    assert members_of("films", "train", "unseen") == ["films"] and members_of("films", "unseen", "tuning") == []


def test_members_that_are_no_numbers_are_one_line(settings: Path) -> None:
    with pytest.raises(UserError, match=r"^task.yaml: members.tuning: found -1, allowed: greater than or equal to 0$"):
        parse(Members, {"unseen": 2, "tuning": -1, "train": 3}, "task.yaml", "members")
    write_json(settings / "grading/members.json", {"unseen": 2, "tuning": 1})
    with pytest.raises(UserError, match=r"^configs/families/grading.yaml: key 'members.train' is missing$"):
        members("train")


def test_family_s_file_is_found_and_an_unknown_name_gets_the_nearest(tmp_path: Path) -> None:
    for path in ("configs/families/grading.yaml", "configs/tasks/films.yaml"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    assert task_path("grading") == Path("configs/families/grading.yaml")
    assert task_path("films") == Path("configs/tasks/films.yaml")
    with pytest.raises(UserError, match=r"tasks: unknown task 'gradin'.*'grading'.*; allowed: films, grading$"):
        task_path("gradin")
