"""Scoring styles: losses on fixed noise, images of fixed seeds, distances to the style's own; see tests/evaluate."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel
from PIL import Image

from condpdiff.common.errors import UserError
from condpdiff.common.files import write_tensors
from condpdiff.evaluate.scorer import Candidate, Row
from condpdiff.evaluate.settings import Eval
from condpdiff.style import models
from condpdiff.style.metrics import Judge
from condpdiff.style.models import CARD, TASK_TYPE, denoising_errors, load_transformer
from condpdiff.style.rows import Prompts, captions_in_turn, images, save_png
from condpdiff.style.score import STRIP, Panel, Scorer, fixed_draws, floor_draws
from condpdiff.zoo.adapters import export_adapter
from condpdiff.zoo.checkpoints import HEAD, THETA, Zoo
from tests.style.stand_ins_style import CAPTIONS, SIZE, make_images, make_style_rows, save_style_base
from tests.style.stand_ins_style_zoo import make_style_task, make_style_zoo

VALIDATION = make_style_rows(3, 4)
ROWS = {"select": make_style_rows(5, 2), "loss": make_style_rows(3, 3), "validation": VALIDATION}
TOKENS = 32  # 2 images
KEYS = {"candidates": 1, "extra_candidates": 1, "select_rows": 5, "pca_axes": 1}
SETTINGS: Any = Eval(**KEYS, batch_tokens=256, images=6, image_steps=2)
STYLES = {"waves": 3, "dots": 9}  # and the seed of its images


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_style_base(tmp_path_factory.mktemp("pixart"))


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


# --- merge, losses ------------------------------------------------------------------------------


def test_merged_weights_are_those_that_peft_merges_of_the_exported_adapter(
    base: Path, scorer: Scorer, zoo: Zoo, tmp_path: Path
) -> None:
    export_adapter(tmp_path, zoo.theta[1], zoo, str(base), "adapter", TASK_TYPE, CARD)
    merged = PeftModel.from_pretrained(load_transformer(base), str(tmp_path)).merge_and_unload()
    scorer.merge(zoo.theta[1])
    found = dict(scorer.model.named_parameters())
    for name, parameter in merged.named_parameters():
        torch.testing.assert_close(found[name].cpu(), parameter, rtol=1e-5, atol=1e-6)


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
    assert scorer.passes == {"validation": 4}


def test_same_call_gives_the_same_images_and_a_merge_gives_others(base: Path, scorer: Scorer, zoo: Zoo) -> None:
    first = scorer.generate(CAPTIONS, range(4), 2, 1.0)
    scorer.merge(zoo.theta[0])
    assert not np.array_equal(first, scorer.generate(CAPTIONS, range(4), 2, 1.0))
    alone = Scorer(base, zoo, make_style_task(), {}, TOKENS)  # without rows
    assert np.array_equal(alone.generate(CAPTIONS, range(4), 2, 1.0), first)
    assert not np.array_equal(alone.generate(CAPTIONS, range(4), 2, 6.0), first)  # guidance


def test_text_encoder_is_read_once_for_the_captions_of_all_candidates(
    base: Path, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def embed(base: Path, captions: list[str]) -> Any:
        asked.append(captions)
        return models.embed_captions(base, captions)

    monkeypatch.setattr("condpdiff.style.score.embed_captions", embed)
    scorer = Scorer(base, zoo, make_style_task(), {}, TOKENS)
    scorer.generate(CAPTIONS[:2] * 2, range(4), 2, 1.0)
    scorer.generate(CAPTIONS[:2], [0, 1], 2, 1.0)
    assert asked == [sorted(["", *CAPTIONS[:2]])]
    scorer.generate([CAPTIONS[3]], [0], 2, 1.0)
    assert asked[1] == sorted(["", *CAPTIONS[:2], CAPTIONS[3]])


def test_transformer_that_puts_out_a_variance_too_is_scored_and_generates(tmp_path: Path) -> None:
    """PixArt-alpha's published one has 8 channels for 4 of the latents."""
    folder = save_style_base(tmp_path / "wide", out_channels=8)
    zoo, _ = make_style_zoo(folder)
    scorer = Scorer(folder, zoo, make_style_task(), {"loss": ROWS["loss"]}, TOKENS)
    scorer.merge(zoo.theta[0])
    assert np.isfinite(scorer.losses("loss")).all()
    assert scorer.generate(CAPTIONS[:2], [0, 1], 2, 4.5).shape == (2, SIZE, SIZE, 3)


def test_validation_is_the_distance_of_images_of_the_style_s_captions(base: Path, scorer: Scorer, zoo: Zoo) -> None:
    scorer.merge(zoo.theta[0])
    prompts = scorer.prompts(6)
    assert prompts == Prompts(VALIDATION["caption"].tolist() * 2, [0, 1, 2, 3, 4, 5])
    found, kept = scorer.validate(SETTINGS)
    made = scorer.make(prompts, SETTINGS)
    assert np.array_equal(kept, made[prompts.spread(6)])
    assert found == Judge(base, ["fd_lite0"], images(VALIDATION)).distances(made)
    assert scorer.passes == {"validation": 12} and scorer.validation_rows(SETTINGS) == 6


@pytest.mark.parametrize("broken", ["validation", "images"])
def test_fewer_than_two_images_are_one_line(scorer: Scorer, base: Path, zoo: Zoo, broken: str) -> None:
    rows, settings = {"validation": VALIDATION}, SETTINGS
    if broken == "validation":
        rows = {"validation": VALIDATION[:1]}
    else:
        settings = settings.model_copy(update={"images": 1})
    scorer = Scorer(base, zoo, make_style_task(), rows, TOKENS)
    with pytest.raises(UserError, match=rf"{broken}: found 1 images, allowed: at least 2"):
        scorer.references(make_style_rows(5, 4), settings)


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


def test_of_each_arm_the_selected_candidate_s_images_are_written_with_their_prompt_and_seed(
    scorer: Scorer, tmp_path: Path
) -> None:
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


def test_any_prompt_stands_in_a_png(tmp_path: Path) -> None:
    for i, prompt in enumerate(("good, very good", "Grüße", "чайка")):
        save_png(tmp_path / f"{i}.png", make_images(1, i)[0], prompt=prompt)
        image = Image.open(tmp_path / f"{i}.png")
        image.load()
        assert image.info == {"prompt": prompt}


@pytest.mark.parametrize(
    ("captions", "kept"),
    [
        ("abcdefghij", [0, 3, 6, 9]),
        ("aabbccddee", [0, 2, 6, 8]),
        ("aabbb", [0, 2, 1, 3]),
        ("aaa", [0, 1, 2]),
        ("ab", [0, 1]),
    ],
)
def test_prompts_to_be_looked_at_are_spread_over_the_captions(captions: str, kept: list[int]) -> None:
    assert Prompts.of(captions, len(captions)).spread(4) == kept


# --- several styles -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(base: Path, zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stages before left two styles' images and zoos."""
    data = tmp_path_factory.mktemp("data")
    (data / "base").symlink_to(base)
    for name, seed in STYLES.items():
        rows, folder = data / "tasks" / name, data / "zoo" / name
        rows.mkdir(parents=True)
        folder.mkdir(parents=True)
        make_style_rows(5, seed).to_parquet(rows / "validation.parquet", index=False)
        zoo.layout.save(folder)
        write_tensors(folder / THETA, {"theta": zoo.theta}, zoo.config)
        write_tensors(folder / HEAD, {})
    return data


def panel_of(data: Path, *names: str) -> Panel:
    return Panel({name: make_style_task() for name in names}, SETTINGS, data)


def test_images_are_generated_once_and_held_against_every_style(base: Path, data: Path, zoo: Zoo) -> None:
    panel = panel_of(data, *STYLES)
    found = panel.score(zoo.theta[3])
    assert panel.scorer.passes["validation"] == 6
    captions = captions_in_turn([make_style_rows(5, seed) for seed in STYLES.values()])
    alone = Scorer(base, zoo, make_style_task(), {}, 256)
    alone.merge(zoo.theta[3])
    made = alone.generate(captions[:6], range(6), 2, 1.0)
    for name, seed in STYLES.items():
        assert found[name] == pytest.approx(Judge(base, ["fd_lite0"], make_images(5, seed)).distances(made)["fd_lite0"])
    assert found["waves"] != found["dots"]
    broken = panel.score(torch.full_like(zoo.theta[0], float("nan")))  # does not work, and has no distance
    assert list(broken) == list(STYLES) and np.isnan(list(broken.values())).all()


def test_prompts_are_of_all_styles_in_turn(data: Path, zoo: Zoo) -> None:
    one, other = (pd.DataFrame({"caption": list(captions)}) for captions in ("abc", "x"))
    assert captions_in_turn([one, other]) == list("axbxcx")
    panel = panel_of(data, "dots")
    assert panel.prompts.captions[:5] == make_style_rows(5, STYLES["dots"])["caption"].tolist()
    assert panel.score(None) == panel.score(None) != panel.score(zoo.theta[3])


def test_images_along_the_way_are_kept_with_their_prompt_and_seed(data: Path, zoo: Zoo, tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        panel, out = panel_of(data, *STYLES), tmp_path / name
        out.mkdir()
        for theta, (kind, at) in ((0, ("weights", 0.0)), (1, ("weights", 1.0)), (0, ("unseen_images", 1.0))):
            panel.score(zoo.theta[theta])
            panel.keep(kind, at)
        panel.write(out)
        files = sorted(path for path in out.rglob("*") if path.is_file())
        written.append({str(path.relative_to(out)): path.read_bytes() for path in files})
    assert written[0] == written[1]
    table = pd.read_csv(tmp_path / "one/images.csv")
    assert list(table.columns) == ["kind", "lambda", "file", "prompt", "seed"]
    counts = {("weights", 0.0): STRIP, ("weights", 1.0): STRIP, ("unseen_images", 1.0): STRIP}
    assert table.groupby(["kind", "lambda"]).size().to_dict() == counts
    for row in table.itertuples():
        with Image.open(tmp_path / "one" / str(row.file)) as image:
            assert image.info == {"prompt": row.prompt, "seed": str(row.seed)} and image.size == (SIZE, SIZE)
    assert written[0]["images/unseen_images/0-2.png"] == written[0]["images/weights/0-2.png"]
    assert written[0]["images/weights/1-2.png"] != written[0]["images/weights/0-2.png"]
