"""What the condition does to styles: images of noise, and the distance of what a LoRA generates."""

from pathlib import Path

import numpy as np
import pytest
import torch

from condpdiff.common.files import write_tensors
from condpdiff.evaluate.interpolation import Scoring
from condpdiff.style.evaluation import Judge, Prompts
from condpdiff.style.probe import DRAWS, load_score, nonsense_inputs
from condpdiff.style.rows import images
from condpdiff.style.score import Scorer
from condpdiff.zoo.checkpoints import HEAD, THETA
from tests.style.stand_ins_style import SIZE, make_style_rows, save_style_base
from tests.style.stand_ins_style_zoo import make_style_task, make_style_zoo

SCORING = Scoring(batch_tokens=256, images=6, image_steps=2, image_guidance=1.0)


def test_nonsense_is_noise_of_the_size_and_number_of_a_draw_of_style_images() -> None:
    task = make_style_task()
    task = task.model_copy(update={"condition": task.condition.model_copy(update={"images": 3})})
    found = nonsense_inputs(task, "style_images")
    assert [(draw.shape, draw.dtype) for draw in found] == [((3, SIZE, SIZE, 3), np.uint8)] * DRAWS
    assert len({draw.tobytes() for draw in found}) == DRAWS
    assert all(np.array_equal(*pair) for pair in zip(found, nonsense_inputs(task, "style_images"), strict=True))


@pytest.mark.parametrize("kind", ["one_hot", "learnable"])
def test_kinds_that_read_no_image_have_no_nonsense(kind: str) -> None:
    assert nonsense_inputs(make_style_task(), kind) == []


def test_a_score_is_the_distance_of_generated_images_and_none_where_the_lora_does_not_work(tmp_path: Path) -> None:
    base, task = save_style_base(tmp_path / "pixart"), make_style_task()
    zoo = make_style_zoo(base, count=2)[0]
    rows, zoos = tmp_path / "tasks/waves", tmp_path / "zoo/waves"
    rows.mkdir(parents=True)
    zoos.mkdir(parents=True)
    validation = make_style_rows(5, 3)
    validation.to_parquet(rows / "validation.parquet", index=False)
    zoo.layout.save(zoos)
    write_tensors(zoos / THETA, {"theta": zoo.theta}, zoo.config)
    write_tensors(zoos / HEAD, {})

    score = load_score("waves", task, SCORING, tmp_path / "tasks", tmp_path / "zoo", base)
    found = [score(zoo.theta[0]), score(torch.full_like(zoo.theta[0], float("nan"))), score(None)]
    assert np.isnan(found[1])
    scorer, prompts = Scorer(base, zoo, task, {}, 256), Prompts.of(validation, 6)
    for theta, value in ((zoo.theta[0], found[0]), (None, found[2])):
        scorer.merge(theta)
        made = scorer.generate(prompts.captions, prompts.seeds, 2, 1.0)
        assert value == pytest.approx(Judge(base, task, images(validation)).distances(made)["fd_lite0"])
