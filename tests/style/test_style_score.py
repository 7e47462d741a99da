"""Scoring styles: losses on fixed noise, images of fixed seeds, distances to the style's own; see tests/evaluate."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from condpdiff.common.files import write_tensors
from condpdiff.evaluate.scorer import Candidate, Row
from condpdiff.evaluate.settings import Eval
from condpdiff.style import models
from condpdiff.style.metrics import Judge
from condpdiff.style.models import denoising_errors
from condpdiff.style.rows import Prompts, images
from condpdiff.style.score import Panel, Scorer, fixed_draws, floor_draws
from condpdiff.zoo.checkpoints import HEAD, THETA, Zoo
from tests.style.stand_ins_style import CAPTIONS, SIZE, make_images, make_style_rows, make_style_task, make_style_zoo

VALIDATION = make_style_rows(3, 4).assign(caption=["the film, good", "Grüße", "чайка"])  # any text stands in a PNG
ROWS = {"select": make_style_rows(5, 2), "loss": make_style_rows(3, 3), "validation": VALIDATION}
TOKENS = 32  # 2 images
KEYS = {"candidates": 1, "extra_candidates": 1, "select_rows": 5, "pca_axes": 1}
SETTINGS: Any = Eval(**KEYS, batch_tokens=256, images=6, image_steps=2)


@pytest.fixture(scope="module")
def zoo(base: Path) -> Zoo:
    return make_style_zoo(base)[0]


@pytest.fixture(scope="module")
def loaded(base: Path, zoo: Zoo) -> Scorer:
    return Scorer(base, zoo, make_style_task(), ROWS, TOKENS)


@pytest.fixture
def scorer(loaded: Scorer) -> Scorer:
    """Without a LoRA."""
    loaded.merge(None)
    loaded.passes.clear()
    return loaded


def test_losses_stand_in_the_order_of_the_images(scorer: Scorer, zoo: Zoo) -> None:
    scorer.merge(zoo.theta[2])
    found, (noise, timesteps) = scorer.losses("select"), scorer.draws["select"]
    for i in range(5):
        one = slice(i, i + 1)
        drawn = noise[one].to(scorer.device), timesteps[one].to(scorer.device)
        with torch.no_grad():
            expected = denoising_errors(scorer.model, scorer.scheduler, scorer.examples["select"][one], *drawn)
        assert found[i] == pytest.approx(expected.item(), rel=1e-4)
    assert scorer.select_score(found) == -found.mean()
    assert np.isnan(scorer.select_score(np.array([1.0, np.inf])))


def test_draws_depend_on_the_rows_number_alone_and_spread_over_the_levels(base: Path, zoo: Zoo) -> None:
    noise, timesteps = fixed_draws([3, 0, 7], (4, 2, 2), 1000)
    again, _ = fixed_draws([7, 3], (4, 2, 2), 1000)
    assert torch.equal(noise[[2, 0]], again)
    assert noise.dtype == torch.float32
    assert timesteps.tolist() == [int(1000 * ((row + 0.5) * 0.6180339887498949 % 1)) for row in (3, 0, 7)]
    _, many = fixed_draws(range(40), (1,), 1000)
    counts = torch.histc(many.float(), bins=8, min=0, max=1000)
    assert counts.min() >= 4 and counts.max() <= 6
    rows = ROWS["select"].set_axis(range(10, 15))  # a split is drawn by its frame's index
    scorer = Scorer(base, zoo, make_style_task(), {"select": rows}, TOKENS)
    assert torch.equal(scorer.draws["select"][0], fixed_draws(range(10, 15), (4, 8, 8), 1000)[0])


def test_images_depend_on_caption_seed_lora_and_guidance_and_not_on_others(
    base: Path, scorer: Scorer, zoo: Zoo
) -> None:
    captions = [CAPTIONS[0], CAPTIONS[1], CAPTIONS[0]]
    found = scorer.generate(captions, [0, 0, 1], 2, 1.0)  # batches of 2
    assert found.shape == (3, SIZE, SIZE, 3) and found.dtype == np.uint8
    alone = scorer.generate(captions[2:], [1], 2, 1.0)
    assert np.abs(found[2].astype(int) - alone[0]).max() <= 1  # rounding of sums of other order
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert scorer.passes == {"validation": 4}
    other = Scorer(base, zoo, make_style_task(), {}, TOKENS)  # without rows
    assert np.array_equal(other.generate(captions, [0, 0, 1], 2, 1.0), found)
    assert not np.array_equal(other.generate(captions, [0, 0, 1], 2, 6.0), found)
    other.merge(zoo.theta[0])
    assert not np.array_equal(other.generate(captions, [0, 0, 1], 2, 1.0), found)


def test_text_encoder_is_read_once_for_all_candidates(base: Path, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    embed = models.embed_captions
    monkeypatch.setattr("condpdiff.style.score.embed_captions", lambda b, texts: asked.append(texts) or embed(b, texts))
    scorer = Scorer(base, zoo, make_style_task(), {}, TOKENS)
    for captions in (CAPTIONS[:2] * 2, CAPTIONS[:2], CAPTIONS[3:]):
        scorer.generate(captions, range(len(captions)), 2, 1.0)
    assert asked == [sorted(["", *CAPTIONS[:2]]), sorted(["", *CAPTIONS[:2], CAPTIONS[3]])]


def test_validation_is_the_distance_of_images_of_the_style_s_captions(base: Path, scorer: Scorer, zoo: Zoo) -> None:
    scorer.merge(zoo.theta[0])
    prompts = scorer.prompts(6)
    assert prompts == Prompts(VALIDATION["caption"].tolist() * 2, [0, 1, 2, 3, 4, 5])
    found, kept = scorer.validate(SETTINGS)
    made = scorer.make(prompts, SETTINGS)
    assert np.array_equal(kept, made[prompts.spread(6)])
    assert found == Judge(base, ["fd_lite0"], images(VALIDATION)).distances(made)
    assert scorer.passes == {"validation": 12} and scorer.validation_rows(SETTINGS) == 6


@pytest.mark.parametrize(("count", "expected"), [(17, [5, 5, 5]), (12, [5, 5]), (5, [5]), (3, [3])])
def test_floor_is_disjoint_draws_of_training_images_as_many_as_are_generated(count: int, expected: list[int]) -> None:
    """Of few training images it is what there is."""
    train, settings = make_style_rows(count, 4), SETTINGS.model_copy(update={"images": 5})
    draws = floor_draws(train, settings)
    assert [len(draw) for draw in draws] == expected
    known = [image.tobytes() for image in images(train)]
    found = [known.index(image.tobytes()) for draw in draws for image in draw]
    assert len(set(found)) == sum(expected)
    assert np.array_equal(np.concatenate(floor_draws(train, settings)), np.concatenate(draws))
    other = floor_draws(train, settings.model_copy(update={"seed": 1}))
    assert not np.array_equal(np.concatenate(other), np.concatenate(draws))


def test_selected_candidates_images_are_written_with_their_prompt_and_seed(scorer: Scorer, tmp_path: Path) -> None:
    few, nan = [make_images(6, seed) for seed in range(3)], float("nan")
    rows = [Row("floor", 0, Candidate(0, nan)), Row("no_lora", 0, Candidate(5, -1, {}, few[0]))]
    rows += [Row("condpdiff", i, Candidate(5, select, {}, few[1 + i])) for i, select in enumerate((-2.0, -1.0))]
    scorer.write(tmp_path, rows, SETTINGS)
    table = pd.read_csv(tmp_path / "images.csv")
    prompts = scorer.prompts(6).at(kept := scorer.prompts(6).spread(6))
    assert list(table.columns) == ["arm", "file", "prompt", "seed"]
    assert table["arm"].tolist() == ["real"] * 6 + ["no_lora"] * 6 + ["condpdiff"] * 6
    assert table["prompt"].tolist() == prompts.captions * 3 and table["seed"][:6].isna().all()
    for i, file in enumerate(table["file"][12:]):
        image, real = Image.open(tmp_path / file), Image.open(tmp_path / table["file"][i])
        assert np.array_equal(np.asarray(image), few[2][i])
        assert image.info == {"prompt": prompts.captions[i], "seed": str(prompts.seeds[i])}
        assert np.array_equal(np.asarray(real), images(VALIDATION)[kept[i] % 3])  # of the same caption


@pytest.mark.parametrize(
    ("captions", "kept"),
    [("abcdefghij", [0, 3, 6, 9]), ("aabbccddee", [0, 2, 6, 8]), ("aabbb", [0, 2, 1, 3]), ("aaa", [0, 1, 2])],
)
def test_prompts_to_be_looked_at_are_spread_over_the_captions(captions: str, kept: list[int]) -> None:
    assert Prompts.of(captions, len(captions)).spread(4) == kept


def test_a_panel_scores_by_the_style_s_own_images(base: Path, zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "base").symlink_to(base)
    rows, folder = tmp_path / "tasks/waves", tmp_path / "zoo/waves"
    rows.mkdir(parents=True)
    folder.mkdir(parents=True)
    ROWS["select"].to_parquet(rows / "validation.parquet", index=False)
    zoo.layout.save(folder)
    write_tensors(folder / THETA, {"theta": zoo.theta}, zoo.config)
    write_tensors(folder / HEAD, {})
    panel = Panel("waves", make_style_task(), SETTINGS, tmp_path)
    alone = Scorer(base, zoo, make_style_task(), {"validation": ROWS["select"]}, 256)
    for theta in zoo.theta[[3, 2, 3]]:
        alone.merge(theta)
        assert panel.score(theta) == alone.validate(SETTINGS)[0]["fd_lite0"]
    assert panel.score(zoo.theta[3]) != panel.score(zoo.theta[2])
    assert np.isnan(panel.score(torch.full_like(zoo.theta[0], float("nan"))))  # does not work, and has no distance
