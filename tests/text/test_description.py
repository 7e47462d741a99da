"""Descriptions: as many texts as the task file says, and two-shot examples that show what the labels mean."""

from pathlib import Path

import pytest

from condpdiff.common.files import write_json
from condpdiff.text.conditions import DESCRIPTION, condition_texts, describe, inputs, two_shots
from tests.stand_ins import make_rows, make_task


def with_shots(kind: str = "classification", **few_shot: object):
    condition = {"description": "d", "paraphrases": ["p", "q"], "few_shot": few_shot}
    return make_task(kind, condition=condition)


def test_description_and_paraphrases_come_first_and_the_draws_beside_them() -> None:
    found = describe(with_shots(draws=5), make_rows(20, 0))
    assert found["task_info"] == ["d", "p", "q"]
    assert len(found["few_shot"]) == 5


@pytest.mark.parametrize("seed", range(5))
def test_a_draw_shows_two_different_classes(seed: int) -> None:
    rows = make_rows(20, 0).assign(label=[0.0] * 18 + [1.0] * 2)  # a rare class is shown all the same
    for text in two_shots(with_shots(draws=10, seed=seed), rows):
        labels = [line.rpartition(" Output: ")[2] for line in text.split("\n")]
        assert sorted(labels) == ["bad", "good"]


def test_examples_are_training_rows_with_their_own_label() -> None:
    rows = make_rows(20, 0)
    known = {
        f"Input: {t} Output: {['bad', 'good'][int(label)]}"
        for t, label in zip(rows["text"], rows["label"], strict=True)
    }
    for text in two_shots(with_shots(draws=10), rows):
        assert set(text.split("\n")) <= known


def test_three_classes_are_all_shown_over_many_draws() -> None:
    data = make_task().data.model_dump(mode="json") | {"labels": ["a", "b", "c"]}
    task = make_task(data=data, condition={"description": "d", "few_shot": {"draws": 30}})
    rows = make_rows(30, 0).assign(label=[float(i % 3) for i in range(30)])
    pairs = [[line.rpartition(" Output: ")[2] for line in text.split("\n")] for text in two_shots(task, rows)]
    assert all(one != two for one, two in pairs)
    assert {label for pair in pairs for label in pair} == {"a", "b", "c"}


def test_rating_is_shown_from_both_halves() -> None:
    rows = make_rows(21, 0, "regression")
    median = rows["label"].median()
    for text in two_shots(with_shots("regression", draws=10), rows):
        ratings = sorted(float(line.rpartition(" Output: ")[2]) for line in text.split("\n"))
        assert ratings[0] <= round(median, 1) <= ratings[1]


def test_fixed_examples_stand_in_place_of_draws() -> None:
    task = with_shots(draws=5, examples=[["a fine film", "good"], ["poor", "bad"]])
    assert two_shots(task, make_rows(20, 0)) == ["Input: a fine film Output: good\nInput: poor Output: bad"]


def test_draws_are_decided_by_their_seed() -> None:
    rows = make_rows(40, 0)
    one, again, other = (two_shots(with_shots(draws=6, seed=seed), rows) for seed in (0, 0, 1))
    assert one == again
    assert one != other


def test_pair_is_shown_with_both_texts() -> None:
    rows = make_rows(4, 0).assign(text_pair="second text")
    assert all(
        line.count(" / second text Output: ") == 1
        for text in two_shots(with_shots(), rows)
        for line in text.split("\n")
    )


@pytest.mark.parametrize("ratings", [[4.0] * 5 + [-4.0], [-4.0] * 5 + [4.0], [0.0, 4.0]])
def test_ratings_of_which_most_are_equal_still_have_two_halves(ratings: list[float]) -> None:
    rows = make_rows(len(ratings), 0, "regression").assign(label=ratings)
    for text in two_shots(with_shots("regression", draws=5), rows):
        one, two = (line.rpartition(" Output: ")[2] for line in text.split("\n"))
        assert one != two


PARTS = {"task_info": ["tell good films", "is the film good"], "few_shot": ["good", "bad", "fine"]}


@pytest.mark.parametrize(
    ("kind", "count"), [("task_info", 2), ("few_shot", 3), ("task_info_few_shot", 6), ("one_hot", 0), ("learnable", 0)]
)
def test_a_kind_reads_its_texts_of_the_prepared_task(kind: str, count: int, tmp_path: Path) -> None:
    write_json(tmp_path / DESCRIPTION, PARTS)
    assert len(inputs(tmp_path, kind)) == count


def test_every_description_meets_every_two_shot_draw() -> None:
    assert condition_texts("task_info_few_shot", PARTS) == [
        f"{info}\n{shot}" for info in ("tell good films", "is the film good") for shot in ("good", "bad", "fine")
    ]
