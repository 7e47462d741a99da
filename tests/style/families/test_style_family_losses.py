"""The denoising losses of a family's members on a stand-in of PixArt: each is on its own, whoever stands beside it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from condpdiff.common.settings import parse
from condpdiff.common.task import Finetune
from condpdiff.evaluate.settings import Scoring
from condpdiff.style.families.losses import Family
from condpdiff.style.models import check_tasks
from condpdiff.style.unseen.score import Painter
from condpdiff.zoo.many import finetune_many
from tests.messages import message_of
from tests.stand_ins import make_collect
from tests.style.stand_ins_style import CAPTIONS, SIZE, make_family, make_style_rows, save_published_classes

TASK = make_family({"type": "drawn", "renderer": "grading"})


def family(folder: Path, base: Path, *seeds: int) -> Family:
    """One member of 3 images for each seed of images."""
    rows = [make_style_rows(3, seed).assign(member=q) for q, seed in enumerate(seeds)]
    folder.mkdir()
    pd.concat(rows).to_parquet(folder / "train.parquet", index=False)
    return Family(TASK, make_collect(), folder, base)


@pytest.fixture(scope="module")
def three(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family(tmp_path_factory.mktemp("family") / "data", base, 1, 2, 3)


@pytest.fixture(scope="module")
def theta(three: Family) -> Tensor:
    return 0.3 * torch.randn(3, three.layout.K, generator=torch.Generator().manual_seed(0))


def test_loss_of_a_member_is_its_own_and_its_draws_are_of_step_and_seed(three: Family, theta: Tensor) -> None:
    losses = three.losses([2, 1, 0], 4, 0)
    beside = losses(theta, 5)
    assert three.count == 3 and beside.shape == (3,) and beside.isfinite().all()
    for i, q in enumerate([2, 1, 0]):
        torch.testing.assert_close(three.losses([q], 4, 0)(theta[i : i + 1], 5)[0], beside[i], rtol=1e-4, atol=1e-5)
    other = losses(torch.cat([theta[:1], 2 * theta[1:]]), 5)
    assert torch.isclose(other[0], beside[0], rtol=1e-4) and not torch.isclose(other[1], beside[1], rtol=1e-2)
    assert torch.equal(losses(theta, 5), beside)
    for found in (losses(theta, 2), three.losses([2, 1, 0], 4, 1)(theta, 5)):
        assert (~torch.isclose(found, beside, rtol=1e-3)).all()


def test_member_is_trained_on_its_own_images_alone(three: Family, theta: Tensor, base: Path, tmp_path: Path) -> None:
    changed = family(tmp_path / "data", base, 9, 2, 3)
    one, other = (each.losses([0, 1, 2], 4, 0)(theta, 0) for each in (three, changed))
    assert (one == other).tolist() == [False, True, True]  # the stand-in's latents of two images are nearly the same
    assert torch.equal(three.start, changed.start)


def test_fine_tuning_starts_at_the_base_and_brings_every_member_s_loss_down(three: Family, theta: Tensor) -> None:
    losses, start = three.losses([0, 1, 2], 6, 0), three.start.repeat(3, 1)
    nothing = torch.zeros_like(start)
    torch.testing.assert_close(losses(start, 0), losses(nothing, 0))
    settings = parse(Finetune, {"steps": 15, "batch_size": 6, "lr": 0.03}, "task.yaml", "finetune")
    tuned = finetune_many(losses, start, three.trained, settings, "waves")
    rated = three.losses([0, 1, 2], 24, 7)
    with torch.no_grad():
        assert (rated(tuned, 0) < 0.95 * rated(start, 0)).all()


def test_images_of_another_size_than_the_base_s_are_refused(base: Path) -> None:
    wide = TASK.model_copy(update={"data": TASK.data.model_copy(update={"size": 64})})
    said = message_of(check_tasks, base, {"waves": wide}, 2, make_collect().target_modules)
    assert said.startswith("configs/families/waves.yaml: data.size: found 64, allowed: 32, as the base")


def test_the_classes_of_pixarts_published_parts_are_fine_tuned_and_generate(tmp_path: Path) -> None:
    """Random weights, shrunken: T5, AutoencoderKL, a transformer that puts out a variance too; with guidance."""
    base = save_published_classes(tmp_path / "published")
    two = family(tmp_path / "data", base, 1, 2)
    settings = parse(Finetune, {"steps": 4, "batch_size": 4, "lr": 0.03}, "task.yaml", "finetune")
    losses, start = two.losses([0, 1], 4, 0), two.start.repeat(2, 1)
    theta = finetune_many(losses, start, two.trained, settings, "waves")
    assert losses(theta, 0).isfinite().all() and (losses(theta, 0) != losses(start, 0)).all()
    scoring = Scoring(batch_tokens=64, image_steps=2, image_guidance=4.5)
    made = Painter(base, two.layout, 2.0, CAPTIONS[:2], scoring)(torch.stack([start[0], 9 * theta[1]]))
    assert made.shape == (2, 2, SIZE, SIZE, 3) and not np.array_equal(made[0], made[1])
