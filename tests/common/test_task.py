"""Which members a run trains on, chooses on and reports; no row in two splits, and more rows begin as fewer."""

import unicodedata
from pathlib import Path

import pandas as pd
import pytest

from condpdiff.common.settings import parse
from condpdiff.common.splits import hold_out, subsample
from condpdiff.common.task import Data, Members, grouped, members, save_members, task_path
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


def keys(frame: pd.DataFrame) -> pd.Series:
    return frame["text"]


def rows(words: list[str] | range) -> pd.DataFrame:
    return pd.DataFrame({"text": [str(word) for word in words]})


def limits(**changes: int) -> Data:
    return Data(**{"max_train": 1000, "max_validation": 1000} | changes)


def drawn(train: range = range(20), validation: range = range(50, 60), **changes: int) -> dict[str, list[str]]:
    found = subsample({"train": rows(train), "validation": rows(validation)}, limits(**changes), keys, "mine")
    return {split: list(frame["text"]) for split, frame in found.items()}


def test_train_loses_what_validation_has(capsys: pytest.CaptureFixture[str]) -> None:
    found = drawn(range(20), range(18, 30))
    assert found == {"train": [str(i) for i in range(18)], "validation": [str(i) for i in range(18, 30)]}
    assert capsys.readouterr().err == "mine: dropped 2 of train that validation has, too\n"


def test_subsample_is_seeded_keeps_order_and_grows_with_the_limit() -> None:
    few, more = (drawn(max_train=n)["train"] for n in (10, 15))
    assert len(few) == 10 and few == sorted(few, key=int) == drawn(max_train=10)["train"]
    assert set(few) < set(more)
    assert drawn(max_train=10, seed=1)["train"] != few
    assert len(drawn(seed=1)["train"]) == 20 and len(drawn(max_validation=3)["validation"]) == 3


def test_held_out_rows_are_taken_out_of_train_and_grow_with_their_number() -> None:
    train = rows(range(20))
    few, more = (hold_out(train, limits(held_out=n), keys, "here") for n in (4, 7))
    assert len(few["held_out"]) == 4
    assert sorted([*few["train"]["text"], *few["held_out"]["text"]]) == sorted(train["text"])
    assert few["train"]["text"].tolist() == sorted(few["train"]["text"], key=int)  # in the old order
    assert more["held_out"]["text"].tolist()[:4] == few["held_out"]["text"].tolist()
    assert hold_out(train, limits(), keys, "here")["train"].equals(train)
    twice = hold_out(rows(["twice"] * 10 + [str(i) for i in range(10)]), limits(held_out=9), keys, "here")
    assert len(twice["held_out"]) == 9 and not set(twice["train"]["text"]) & set(twice["held_out"]["text"])
    expected = "params.yaml: data.held_out: found 11, allowed: at most half of the 20 training rows of here"
    assert message_of(hold_out, train, limits(held_out=11), keys, "here") == expected
