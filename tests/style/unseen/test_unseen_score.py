"""Images of many LoRAs, and their distances to a style's own, on stand-ins of PixArt and of the feature network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from condpdiff.evaluate.settings import Scoring
from condpdiff.style.models import embed_captions, generate, load_transformer, pipeline
from condpdiff.style.unseen import score
from condpdiff.style.unseen.score import Judge, Painter, confusion
from tests.style.stand_ins_style import CAPTIONS, SIZE, make_images, make_style_zoo

SCORED, PIXELS = [0, 2, 4], ("rmse", "rmse_16", "lpips_lite0")


def judge(base: Path, *true: np.ndarray, aligned: bool = True) -> Judge:
    found = Judge(base, SCORED, aligned, ["fd_lite0"])
    found.turn_to(list(true))
    return found


def test_distance_to_the_same_images_is_0_and_grows_with_what_is_off(base: Path) -> None:
    true, noise = make_images(6, 0), np.random.default_rng(0).normal(size=(6, SIZE, SIZE, 3))
    found = judge(base, noise.clip(0, 255).astype(np.uint8), true)
    same = found.distances(true, 1)
    assert list(same) == [*PIXELS, "fd_lite0"]
    assert [same[key] for key in PIXELS] == [0, 0, 0] and abs(same["fd_lite0"]) < 1e-3
    near, far = (found.distances((true + s * noise).clip(0, 255).astype(np.uint8), 1) for s in (10, 60))
    assert all(0 < near[key] < far[key] for key in same)
    assert 8 < near["rmse"] < 12 and near["rmse_16"] < near["rmse"] and far["lpips_lite0"] <= 4


def test_rmse_is_of_the_scored_captions_alone_and_the_coarse_one_forgives_a_stripe_out_of_step(base: Path) -> None:
    true = np.full((6, SIZE, SIZE, 3), 100, np.uint8)
    off = np.array([10, 90, 20, 90, 60, 90], np.uint8)[:, None, None, None]
    found = judge(base, true).distances(true + off, 0)
    assert found["rmse"] == pytest.approx(30) and found["rmse_16"] == pytest.approx(30, abs=0.5)
    stripes = np.zeros((6, 64, 64, 3), np.uint8)
    stripes[:, :, np.arange(64) % 4 < 2] = 255
    found = judge(base, stripes).distances(255 - stripes, 0)
    assert found["rmse"] == 255 and found["rmse_16"] < 0.1 * 255


def test_style_without_true_images_of_the_captions_has_the_frechet_distance_alone(base: Path) -> None:
    made, own = make_images(6, 0), make_images(9, 1)
    one, other = (judge(base, own, own[::-1].copy(), aligned=False).distances(made, style) for style in (0, 1))
    assert list(one) == ["fd_lite0"] and one["fd_lite0"] > 0
    assert other["fd_lite0"] == pytest.approx(one["fd_lite0"], rel=1e-3)


def test_confusion_has_a_row_for_each_lora_and_a_column_for_each_style() -> None:
    true = np.stack([np.full((2, 8, 8, 3), value, np.uint8) for value in (10, 50, 250)])
    found = confusion(true[:2] + 5, true)
    assert found.tolist() == [[5, 35, 235], [45, 5, 195]]


# --- images -------------------------------------------------------------------------------------


def painter(base: Path, **keys: Any) -> tuple[Painter, torch.Tensor]:
    """And some LoRAs."""
    zoo = make_style_zoo(base)
    scoring = Scoring(batch_tokens=64, image_steps=2, **keys)
    return Painter(base, zoo.layout, 2.0, CAPTIONS[:2], scoring), 5 * zoo.theta[:3]


def by_hand(base: Path, guidance: float = 1.0) -> np.ndarray:
    """Images of the bare base."""
    embedded, mask = embed_captions(base, ["", *CAPTIONS[:2]])
    pipe = pipeline(base, load_transformer(base))
    return generate(pipe, embedded[1:], mask[1:], [0, 1], 2, guidance, (embedded[:1], mask[:1]))


def off(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())


def test_each_lora_makes_its_own_images_and_zeros_the_base_s(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "TOGETHER", 2)
    (paint, theta), order, bare = painter(base), [2, 0, 1], by_hand(base)
    found = paint(theta)
    assert found.shape == (3, 2, SIZE, SIZE, 3) and found.dtype == np.uint8
    assert off(paint(theta[order]), found[order]) <= 1
    assert off(paint(theta[2:]), found[2:]) <= 1
    assert off(paint(0 * theta[:1])[0], bare) <= 1 and off(bare[0], bare[1]) > 5
    assert min(off(found[0], found[1]), off(found[1], found[2]), off(found[0], bare)) > 5


def test_guided_images_are_of_the_lora_for_caption_and_empty_caption_alike(base: Path) -> None:
    paint, theta = painter(base, image_guidance=3.0)
    assert off(paint(0 * theta[:1])[0], by_hand(base, 3.0)) <= 1
    assert off(paint(theta[:2]), np.concatenate([paint(one[None]) for one in theta[:2]])) <= 1
