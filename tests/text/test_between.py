"""Between two text tasks: other examples than the condition's, and scores with each task's own head."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from condpdiff.common.files import write_json, write_tensors
from condpdiff.evaluate.interpolation import Point, Scoring
from condpdiff.text.between import score_between, unseen_inputs
from condpdiff.text.conditions import DESCRIPTION, describe
from condpdiff.text.score import Scorer
from condpdiff.text.task import Task
from condpdiff.zoo.checkpoints import HEAD, THETA, Zoo, load_zoo
from tests.stand_ins import make_rows, make_task, make_zoo, save_rows

SCORING = Scoring(batch_tokens=128, images=1, image_steps=1, image_guidance=1.0)


def prepare(folder: Path, task: Task) -> Path:
    """The rows of `save_rows`, and what describes them."""
    write_json(folder / DESCRIPTION, describe(task, pd.read_parquet(folder / "train.parquet")))
    return folder


def described(**condition: object) -> Task:
    return make_task(
        condition={"description": "Good or bad?", "unseen": ["Pleased or not?", "Yes or no?"], **condition}
    )


def test_unseen_examples_are_training_rows_in_other_draws_beside_the_same_descriptions(films: Path) -> None:
    task = make_task()
    prepare(films, task)
    parts = describe(task, make_rows(40, 0))
    found = unseen_inputs(task, films, "task_info_few_shot")
    assert list(found) == ["unseen_examples"]  # the file has no other words
    texts = found["unseen_examples"]
    seen = {f"{info}\n{shots}" for info in parts["task_info"] for shots in parts["few_shot"]}
    assert texts and not set(texts) & seen
    assert {text.split("\n")[0] for text in texts} == set(parts["task_info"])
    rows = {f"Input: {row.text} Output: {['bad', 'good'][int(row.label)]}" for row in make_rows(40, 0).itertuples()}
    assert all(set(text.split("\n")[1:]) <= rows for text in texts)
    assert found == unseen_inputs(task, films, "task_info_few_shot")


def test_unseen_words_stand_beside_the_examples_that_training_drew(films: Path) -> None:
    task = described()
    prepare(films, task)
    shots = describe(task, make_rows(40, 0))["few_shot"]
    found = unseen_inputs(task, films, "task_info_few_shot")["unseen_wording"]
    assert found == [f"{info}\n{shot}" for info in task.condition.unseen for shot in shots]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("task_info_few_shot", ["unseen_wording", "unseen_examples"]), ("task_info", ["unseen_wording"]),
        ("few_shot", ["unseen_examples"]), ("one_hot", []), ("learnable", []),
    ],
)  # fmt: skip
def test_a_kind_has_unseen_what_it_reads(films: Path, kind: str, expected: list[str]) -> None:
    task = described()
    assert list(unseen_inputs(task, prepare(films, task), kind)) == expected


def test_fixed_examples_leave_none_unseen(films: Path) -> None:
    task = described(few_shot={"examples": [["fine", "good"], ["poor", "bad"]]})
    assert list(unseen_inputs(task, prepare(films, task), "task_info_few_shot")) == ["unseen_wording"]


def save_zoo(folder: Path, zoo: Zoo) -> None:
    folder.mkdir(parents=True)
    zoo.layout.save(folder)
    write_tensors(folder / THETA, {"theta": zoo.theta}, zoo.config)
    write_tensors(folder / HEAD, zoo.head)


def test_every_lora_is_scored_on_both_tasks_with_their_own_heads(base, tmp_path: Path) -> None:
    folder, data, zoos = base("bert"), tmp_path / "data/tasks", tmp_path / "data/zoo"
    tasks = {"films": make_task(), "ratings": make_task("regression")}
    for outputs, (name, kind) in ((2, ("films", "classification")), (1, ("ratings", "regression"))):
        save_rows(data / name, kind)
        save_zoo(zoos / name, make_zoo(folder, "bert", num_outputs=outputs)[0])
    theta = load_zoo(zoos / "films").theta
    points = [Point("weights", 0.0, theta[:2]), Point("condition", 0.5, theta[2:3])]
    found = score_between(points, tasks, SCORING, data=data, zoos=zoos, base=folder, out=tmp_path)
    assert list(found.columns) == ["kind", "lambda", "sample", "task", "score"]
    assert found[["kind", "lambda", "sample"]].drop_duplicates().values.tolist() == [
        ["weights", 0.0, 0],
        ["weights", 0.0, 1],
        ["condition", 0.5, 0],
    ]
    assert found.groupby("task").size().to_dict() == {"films": 3, "ratings": 3}
    for name, metric in (("films", "accuracy"), ("ratings", "pearson")):
        rows = {"validation": pd.read_parquet(data / name / "validation.parquet")}
        scorer = Scorer(folder, load_zoo(zoos / name, 1), tasks[name], rows, 128)
        scorer.merge(theta[2])
        expected = scorer.score("validation", scorer.predict("validation"))[metric]
        assert found[(found["task"] == name) & (found["kind"] == "condition")]["score"].tolist() == [expected]
    assert torch.isfinite(torch.tensor(found["score"])).all()
    assert not [path for path in tmp_path.iterdir() if path.name != "data"]  # scores alone: nothing else is written
