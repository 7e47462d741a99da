"""What the condition does to text tasks: nonsense in the shape of a condition, and scores with the task's own head."""

from pathlib import Path

import pandas as pd
import pytest

from condpdiff.common.files import write_tensors
from condpdiff.evaluate.interpolation import Scoring
from condpdiff.text.probe import NONSENSE, load_score, nonsense_inputs
from condpdiff.text.score import Scorer
from condpdiff.zoo.checkpoints import HEAD, THETA, load_zoo
from tests.stand_ins import make_task, make_zoo, save_rows

SCORING = Scoring(batch_tokens=128, images=1, image_steps=1, image_guidance=1.0)


def test_nonsense_has_the_shape_of_the_kind_of_condition() -> None:
    whole = nonsense_inputs(make_task(), "task_info_few_shot")
    assert len(set(whole)) == len(NONSENSE["task_info"]) * len(NONSENSE["few_shot"])
    for text in whole:
        description, *shots = text.split("\n")
        assert description in NONSENSE["task_info"] and len(shots) == 2
        assert all(shot.startswith("Input: ") and " Output: " in shot for shot in shots)
    assert nonsense_inputs(make_task(), "task_info") == NONSENSE["task_info"]
    assert nonsense_inputs(make_task(), "few_shot") == NONSENSE["few_shot"]


@pytest.mark.parametrize("kind", ["one_hot", "learnable"])
def test_kinds_that_read_no_text_have_no_nonsense(kind: str) -> None:
    assert nonsense_inputs(make_task(), kind) == []


@pytest.mark.parametrize(("kind", "metric"), [("classification", "accuracy"), ("regression", "pearson")])
def test_a_score_is_that_of_the_merged_lora_with_the_task_s_own_head(
    base, tmp_path: Path, kind: str, metric: str
) -> None:
    folder, data, zoos = base("bert"), tmp_path / "data/tasks", tmp_path / "data/zoo"
    zoo = make_zoo(folder, "bert", num_outputs=2 if kind == "classification" else 1)[0]
    save_rows(data / "films", kind)
    (zoos / "films").mkdir(parents=True)
    zoo.layout.save(zoos / "films")
    write_tensors(zoos / "films" / THETA, {"theta": zoo.theta}, zoo.config)
    write_tensors(zoos / "films" / HEAD, zoo.head)

    score = load_score("films", make_task(kind), SCORING, data, zoos, folder)
    found = [score(zoo.theta[0]), score(None), score(zoo.theta[0])]
    rows = {"validation": pd.read_parquet(data / "films/validation.parquet")}
    scorer = Scorer(folder, load_zoo(zoos / "films", 1), make_task(kind), rows, 128)
    for theta, value in ((zoo.theta[0], found[0]), (None, found[1])):
        scorer.merge(theta)
        assert value == scorer.score("validation", scorer.predict("validation"))[metric]
    assert found[0] == found[2] != found[1]
