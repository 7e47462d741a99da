"""Scoring styles: W0 + (alpha / r) B A and back, losses on fixed noise, images of fixed seeds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

from condpdiff.common.errors import UserError
from condpdiff.style import models
from condpdiff.style.models import CARD, TASK_TYPE, denoising_errors, load_transformer
from condpdiff.style.score import Scorer, fixed_draws
from condpdiff.zoo.adapters import export_adapter
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.layout import Entry, Layout, unflatten
from tests.style.stand_ins_style import CAPTIONS, SIZE, make_style_rows, save_style_base
from tests.style.stand_ins_style_zoo import make_style_task, make_style_zoo

ROWS = {"select": make_style_rows(5, 2), "loss": make_style_rows(3, 3)}
TOKENS = 32  # 2 images


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_style_base(tmp_path_factory.mktemp("pixart"))


@pytest.fixture
def zoo(base: Path) -> Zoo:
    return make_style_zoo(base)[0]


@pytest.fixture
def scorer(base: Path, zoo: Zoo) -> Scorer:
    return Scorer(base, zoo, make_style_task(), ROWS, TOKENS)


def with_entries(zoo: Zoo, change: Callable[[Entry], Entry]) -> Zoo:
    return replace(zoo, layout=Layout(tuple(change(entry) for entry in zoo.layout.entries)))


# --- merge --------------------------------------------------------------------------------------


def test_merged_weight_is_w0_plus_scaled_ba(scorer: Scorer, zoo: Zoo) -> None:
    scorer.merge(zoo.theta[0])
    tensors = unflatten(zoo.theta[0], zoo.layout)
    assert len(scorer.modules) == 16  # 2 blocks, 2 attentions, 4 projections
    for name, module in scorer.modules.items():
        a, b = (tensors[f"base_model.model.{name}.lora_{m}.weight"] for m in "AB")
        expected = scorer.base_weights[name].cpu() + 4.0 / 2 * b @ a
        torch.testing.assert_close(module.weight.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_merged_weights_are_those_that_peft_merges_of_the_exported_adapter(
    base: Path, scorer: Scorer, zoo: Zoo, tmp_path: Path
) -> None:
    export_adapter(tmp_path, zoo.theta[1], zoo, str(base), "adapter", TASK_TYPE, CARD)
    merged = PeftModel.from_pretrained(load_transformer(base), str(tmp_path)).merge_and_unload()
    scorer.merge(zoo.theta[1])
    found = dict(scorer.transformer.named_parameters())
    for name, parameter in merged.named_parameters():
        torch.testing.assert_close(found[name].cpu(), parameter, rtol=1e-5, atol=1e-6)


def test_merges_do_not_add_up_and_none_restores_w0_to_the_bit(scorer: Scorer, zoo: Zoo) -> None:
    scorer.merge(zoo.theta[1])
    once = {name: module.weight.clone() for name, module in scorer.modules.items()}
    scorer.merge(torch.full_like(zoo.theta[0], float("nan")))
    scorer.merge(zoo.theta[1])
    assert all(torch.equal(module.weight, once[name]) for name, module in scorer.modules.items())
    scorer.merge(None)
    assert all(torch.equal(module.weight, scorer.base_weights[name]) for name, module in scorer.modules.items())


# --- losses -------------------------------------------------------------------------------------


def test_losses_stand_in_the_order_of_the_images(base: Path, scorer: Scorer, zoo: Zoo) -> None:
    scorer.merge(zoo.theta[2])
    found = scorer.losses("select")
    assert found.dtype == np.float64
    noise, timesteps = scorer.draws["select"]
    for i in range(5):
        one = slice(i, i + 1)
        examples = scorer.examples["select"][one]
        with torch.no_grad():
            expected = denoising_errors(
                scorer.transformer, scorer.scheduler, examples, noise[one].to(scorer.device),
                timesteps[one].to(scorer.device),
            )  # fmt: skip
        assert found[i] == pytest.approx(expected.item(), rel=1e-4)
    assert np.ptp(found) > 0.01


def test_losses_of_a_candidate_are_the_same_again_and_another_ones_differ(scorer: Scorer, zoo: Zoo) -> None:
    scorer.merge(zoo.theta[0])
    first = scorer.losses("loss")
    scorer.merge(zoo.theta[1])
    assert not np.allclose(scorer.losses("loss"), first)
    scorer.merge(zoo.theta[0])
    assert np.array_equal(scorer.losses("loss"), first)


def test_losses_of_a_part_are_those_of_the_whole(base: Path, zoo: Zoo) -> None:
    rows = ROWS["select"]
    scorer = Scorer(base, zoo, make_style_task(), {"select": rows, "part": rows[2:4]}, TOKENS)
    scorer.merge(zoo.theta[0])
    np.testing.assert_allclose(scorer.losses("part"), scorer.losses("select")[2:4], rtol=1e-5)


def test_draws_depend_on_the_rows_number_alone_and_spread_over_the_levels() -> None:
    noise, timesteps = fixed_draws([3, 0, 7], (4, 2, 2), 1000)
    again, _ = fixed_draws([7, 3], (4, 2, 2), 1000)
    assert torch.equal(noise[[2, 0]], again)
    assert noise.dtype == torch.float32
    assert timesteps.tolist() == [int(1000 * ((row + 0.5) * 0.6180339887498949 % 1)) for row in (3, 0, 7)]
    _, many = fixed_draws(range(40), (1,), 1000)
    counts = torch.histc(many.float(), bins=8, min=0, max=1000)
    assert counts.min() >= 4
    assert counts.max() <= 6


def test_images_that_went_through_the_transformer_are_counted(scorer: Scorer) -> None:
    scorer.losses("select")
    scorer.losses("select")
    scorer.losses("loss")
    scorer.generate(CAPTIONS[:3], [0, 1, 2], 2, 1.0)
    assert scorer.passes == {"select": 10, "loss": 3, "images": 3}


# --- images -------------------------------------------------------------------------------------


def test_images_depend_on_caption_and_seed_and_not_on_what_stands_beside_them(scorer: Scorer) -> None:
    captions = [CAPTIONS[0], CAPTIONS[1], CAPTIONS[0]]
    found = scorer.generate(captions, [0, 0, 1], 3, 1.0)  # batches of 2
    assert found.shape == (3, SIZE, SIZE, 3)
    assert found.dtype == np.uint8
    alone = scorer.generate(captions[2:], [1], 3, 1.0)
    assert np.abs(found[2].astype(int) - alone[0]).max() <= 1  # rounding of sums of other order
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_same_call_gives_the_same_images_and_a_merge_gives_others(scorer: Scorer, zoo: Zoo) -> None:
    first = scorer.generate(CAPTIONS, range(4), 3, 1.0)
    scorer.merge(zoo.theta[0])
    other = scorer.generate(CAPTIONS, range(4), 3, 1.0)
    scorer.merge(None)
    assert not np.array_equal(first, other)
    assert np.array_equal(scorer.generate(CAPTIONS, range(4), 3, 1.0), first)


def test_scorer_without_rows_generates_the_same(base: Path, zoo: Zoo, scorer: Scorer) -> None:
    alone = Scorer(base, zoo, make_style_task(), {}, TOKENS)
    assert np.array_equal(alone.generate(CAPTIONS, range(4), 2, 1.0), scorer.generate(CAPTIONS, range(4), 2, 1.0))


def test_guidance_changes_the_images(scorer: Scorer) -> None:
    plain, guided = (scorer.generate(CAPTIONS[:2], [0, 1], 3, guidance) for guidance in (1.0, 6.0))
    assert not np.array_equal(plain, guided)


def test_text_encoder_is_read_once_for_the_captions_of_all_candidates(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def embed(base: Path, captions: list[str]) -> Any:
        asked.append(captions)
        return models.embed_captions(base, captions)

    monkeypatch.setattr("condpdiff.style.score.embed_captions", embed)
    scorer.generate(CAPTIONS[:2] * 2, range(4), 2, 1.0)
    scorer.generate(CAPTIONS[:2], [0, 1], 2, 1.0)
    assert asked == [sorted(["", *CAPTIONS[:2]])]
    scorer.generate([CAPTIONS[3]], [0], 2, 1.0)
    assert asked[1] == sorted(["", *CAPTIONS[:2], CAPTIONS[3]])


def test_transformer_that_puts_out_a_variance_too_is_scored_and_generates(tmp_path: Path) -> None:
    """PixArt-alpha's published one has 8 channels for 4 of the latents."""
    folder = save_style_base(tmp_path / "wide", out_channels=8)
    zoo, _ = make_style_zoo(folder)
    scorer = Scorer(folder, zoo, make_style_task(), ROWS, TOKENS)
    scorer.merge(zoo.theta[0])
    assert np.isfinite(scorer.losses("loss")).all()
    assert scorer.generate(CAPTIONS[:2], [0, 1], 2, 4.5).shape == (2, SIZE, SIZE, 3)


# --- errors -------------------------------------------------------------------------------------


def test_theta_of_another_length_is_refused(scorer: Scorer) -> None:
    with pytest.raises(UserError, match="theta: found 3 weights"):
        scorer.merge(torch.zeros(3))


def test_module_that_the_base_lacks_is_named(base: Path, zoo: Zoo) -> None:
    other = with_entries(zoo, lambda e: replace(e, key=e.key.replace("blocks.1", "blocks.9")))
    with pytest.raises(UserError, match=r"data/base: no module 'transformer_blocks.9.*rerun finetune-collect"):
        Scorer(base, other, make_style_task(), ROWS, TOKENS)


def test_module_of_another_shape_or_kind_is_named(base: Path, zoo: Zoo) -> None:
    def wider(e: Entry) -> Entry:
        return replace(e, shape=(2, 99)) if e.shape[0] == 2 else e

    with pytest.raises(UserError, match=r"found \[16, 16\], allowed: \[16, 99\]"):
        Scorer(base, with_entries(zoo, wider), make_style_task(), ROWS, TOKENS)
    norm = with_entries(zoo, lambda e: replace(e, key=e.key.replace("blocks.0.attn1.to_q", "blocks.0.norm1")))
    with pytest.raises(UserError, match="norm1: found LayerNorm, allowed: Linear"):
        Scorer(base, norm, make_style_task(), ROWS, TOKENS)


def test_rows_of_a_frame_keep_their_numbers(base: Path, zoo: Zoo) -> None:
    """A split is drawn by its frame's index, which `select_rows` counts from 0."""
    rows = ROWS["select"].set_axis(range(10, 15))
    scorer = Scorer(base, zoo, make_style_task(), {"select": rows}, TOKENS)
    assert torch.equal(scorer.draws["select"][0], fixed_draws(range(10, 15), (4, 8, 8), 1000)[0])
