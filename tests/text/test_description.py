"""Conditions of text tasks: as many texts as the task file says, examples that show what labels mean."""

from pathlib import Path

import pytest

from condpdiff.common.files import write_json
from condpdiff.text.conditions import (
    DESCRIPTION,
    NONSENSE,
    condition_texts,
    describe,
    fit,
    inputs,
    nonsense_inputs,
    two_shots,
)
from condpdiff.text.task import Task
from tests.stand_ins import make_rows, make_task

PARTS = {"task_info": ["tell good films", "is the film good"], "few_shot": ["good", "bad", "fine"]}


def with_shots(kind: str = "classification", **few_shot: object) -> Task:
    return make_task(kind, condition={"description": "d", "paraphrases": ["p", "q"], "few_shot": few_shot})


def labels_of(text: str) -> list[str]:
    return [line.rpartition(" Output: ")[2] for line in text.split("\n")]


@pytest.mark.parametrize("labels", [[0.0, 1.0] * 10, [0.0] * 18 + [1.0] * 2, [0.0, 1.0, 2.0] * 6 + [0.0, 1.0]])
def test_a_draw_shows_two_different_classes_of_training_rows_even_rare_ones(labels: list[float]) -> None:
    names = ["bad", "good", "fair"][: len(set(labels))]
    task = with_shots(draws=30)
    task = task.model_copy(update={"data": task.data.model_copy(update={"labels": names})})
    rows = make_rows(20, 0).assign(label=labels)
    known = {f"Input: {row.text} Output: {names[int(row.label)]}" for row in rows.itertuples()}
    texts = two_shots(task, rows)
    assert all(len(set(labels_of(text))) == 2 and set(text.split("\n")) <= known for text in texts)
    assert {label for text in texts for label in labels_of(text)} == set(names)


@pytest.mark.parametrize("ratings", [[4.0] * 5 + [-4.0], [-4.0] * 5 + [4.0], [0.0, 4.0], list(range(-4, 5))])
def test_ratings_are_shown_from_both_halves_even_if_most_are_equal(ratings: list[float]) -> None:
    rows = make_rows(len(ratings), 0, "regression").assign(label=[float(rating) for rating in ratings])
    for text in two_shots(with_shots("regression", draws=5), rows):
        low, high = sorted(map(float, labels_of(text)))
        assert low < high and low <= rows["label"].median() <= high


def test_draws_stand_beside_the_descriptions_are_decided_by_their_seed_and_show_both_texts() -> None:
    rows = make_rows(40, 0)
    one, again, other = (describe(with_shots(draws=6, seed=seed), rows) for seed in (0, 0, 1))
    assert one["task_info"] == ["d", "p", "q"] and len(one["few_shot"]) == 6
    assert one == again != other
    pairs = two_shots(with_shots(), rows.assign(text_pair="second text"))
    assert all(line.count(" / second text Output: ") == 1 for text in pairs for line in text.split("\n"))
    fixed = with_shots(draws=5, examples=[["a fine film", "good"], ["poor", "bad"]])
    assert two_shots(fixed, rows) == ["Input: a fine film Output: good\nInput: poor Output: bad"]


def test_a_kind_reads_its_texts_of_the_prepared_task(tmp_path: Path) -> None:
    write_json(tmp_path / DESCRIPTION, PARTS)
    counts = {"task_info": 2, "few_shot": 3, "task_info_few_shot": 6, "one_hot": 0, "learnable": 0}
    assert {kind: len(inputs(tmp_path, kind)) for kind in counts} == counts
    every = [f"{info}\n{shot}" for info in PARTS["task_info"] for shot in PARTS["few_shot"]]
    assert condition_texts("task_info_few_shot", PARTS) == every  # every description meets every two-shot draw


@pytest.mark.parametrize("most", [14, 40, 400])
def test_condition_that_is_too_long_keeps_description_labels_and_both_ends_of_its_examples(most: int) -> None:
    def tokens(text: str) -> int:
        return len(text.split())

    long = f"Input: {'a ' * 99}mid{' b' * 99} / the end Output: not good"
    text = f"What is it?\n{long}\nInput: short Output: bad"
    found = fit(text, tokens, most)
    first, second, third = found.split("\n")
    assert tokens(found) <= most or most == 400
    assert first == "What is it?" and second.startswith("Input: ") and labels_of(second) == ["not good"]
    assert third.startswith("Input: ") and labels_of(third) == ["bad"]
    if most >= 20:
        assert second.startswith("Input: a a") and second.endswith("end Output: not good") and "short" in third
    assert fit(text, tokens, 10**6) == text
    assert fit("no examples " * 50, tokens, 5) == "no examples " * 50
    assert tokens(fit(f"d\nExample: {'a ' * 99}\nExample: b", tokens, 20)) <= 20


def test_nonsense_has_the_shape_of_the_kind_of_condition() -> None:
    whole = nonsense_inputs("task_info_few_shot")
    assert len(set(whole)) == len(NONSENSE["task_info"]) * len(NONSENSE["few_shot"])
    for text in whole:
        description, *shots = text.split("\n")
        assert description in NONSENSE["task_info"] and len(shots) == 2
        assert all(shot.startswith("Input: ") and " Output: " in shot for shot in shots)
    for kind, expected in (("one_hot", []), ("learnable", []), *NONSENSE.items()):
        assert nonsense_inputs(kind) == expected
