"""merge-eval of a style: every arm is scored by one rule and generates from the same prompts, on a random stand-in."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_json, read_tensors
from condpdiff.common.settings import parse
from condpdiff.evaluate.arms import Arm, first_best, winner
from condpdiff.evaluate.settings import Eval
from condpdiff.style.evaluation import (
    Judge,
    Prompts,
    count_passes,
    evaluate,
    floor_draws,
    run_arm,
    score_arms,
    score_doses,
    splits,
    write_images,
    write_trajectories,
)
from condpdiff.style.rows import images
from condpdiff.style.score import Scorer
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.settings import Performance
from tests.style.stand_ins_style import SIZE, make_images, make_style_rows, save_style_base
from tests.style.stand_ins_style_zoo import make_style_task, make_style_zoo

SETTINGS = parse(
    Eval,
    {
        "candidates": 4, "extra_candidates": 2, "select_rows": 8, "pca_axes": 4, "batch_tokens": 256,
        "images": 5, "image_steps": 2,
    },
    "params.yaml",
    "eval",
)  # fmt: skip
RACING = SETTINGS.model_copy(update={"select": "racing"})
VALIDATION = make_style_rows(3, 3)
PROMPTS = Prompts.of(VALIDATION, SETTINGS.images)
FLOOR = [make_images(5, seed) for seed in (7, 8)]


class Brightness:
    """In place of a judge: how much darker images are than white; two metrics, and no network."""

    networks: dict[str, None] = {"fd_lite0": None, "fid": None}  # noqa: RUF012

    def distances(self, found: np.ndarray) -> dict[str, float]:
        return {"fd_lite0": 255 - float(found.mean()), "fid": float(found.std())}


JUDGE: Any = Brightness()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_style_base(tmp_path_factory.mktemp("pixart"))


@pytest.fixture
def zoo(base: Path) -> Zoo:
    return make_style_zoo(base, count=8)[0]


@pytest.fixture
def arms(zoo: Zoo) -> dict[str, Arm]:
    soup = zoo.theta.mean(0, keepdim=True)
    return {
        "original": Arm(zoo.theta[[1, 4, 7]], [1, 4, 7]),
        "soup": Arm(soup, [None]),
        "zero_decode": Arm(soup.clone(), [None]),
        "condpdiff": Arm(zoo.theta[:4] + 0.01, [None] * 4),
    }


@pytest.fixture
def scorer(base: Path, zoo: Zoo) -> Scorer:
    return make_scorer(base, zoo, SETTINGS)


@pytest.fixture
def racing_scorer(base: Path, zoo: Zoo) -> Scorer:
    return make_scorer(base, zoo, RACING)


def make_scorer(base: Path, zoo: Zoo, settings: Eval) -> Scorer:
    rows = splits(make_style_rows(12, 2), Performance(rows=3), settings)
    return Scorer(base, zoo, make_style_task(), rows, settings.batch_tokens)


def score(scorer: Scorer, arms: dict[str, Arm], zoo: Zoo, settings: Eval) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    return score_arms(scorer, JUDGE, arms, zoo.theta, FLOOR, PROMPTS, settings)


# --- what candidates are scored on --------------------------------------------------------------


def test_candidates_are_selected_on_other_held_out_images_than_rate_checkpoints() -> None:
    held_out = make_style_rows(12, 2)
    rows = splits(held_out, Performance(rows=3), RACING)
    assert rows["loss"]["image"].tolist() == held_out["image"][:3].tolist()
    assert rows["select"]["image"].tolist() == held_out["image"][3:11].tolist()
    assert [len(rows[name]) for name in rows if name.startswith("select ")] == [2, 2, 4]
    assert set(splits(held_out, Performance(rows=3), SETTINGS)) == {"select", "loss"}


def test_prompts_are_the_captions_of_validation_again_and_again_with_a_seed_each() -> None:
    captions = VALIDATION["caption"].tolist()
    assert PROMPTS.captions == [*captions, *captions[:2]]
    assert PROMPTS.seeds == [0, 1, 2, 3, 4]


def test_floor_is_disjoint_draws_of_training_images_as_many_as_are_generated() -> None:
    train = make_style_rows(17, 4)
    draws = floor_draws(train, SETTINGS)
    assert [draw.shape for draw in draws] == [(5, SIZE, SIZE, 3)] * 3
    known = [image.tobytes() for image in images(train)]
    found = [known.index(image.tobytes()) for draw in draws for image in draw]
    assert len(set(found)) == 15
    assert found != sorted(found)
    assert np.array_equal(np.concatenate(floor_draws(train, SETTINGS)), np.concatenate(draws))
    other = floor_draws(train, SETTINGS.model_copy(update={"seed": 1}))
    assert not np.array_equal(np.concatenate(other), np.concatenate(draws))


@pytest.mark.parametrize(("count", "expected"), [(12, [5, 5]), (5, [5]), (3, [3])])
def test_floor_of_few_training_images_is_what_there_is(count: int, expected: list[int]) -> None:
    assert [len(draw) for draw in floor_draws(make_style_rows(count, 4), SETTINGS)] == expected


def test_images_of_the_style_itself_are_nearer_to_it_than_others(base: Path) -> None:
    real = make_images(12, 0)
    judge = Judge(base, make_style_task(), real)
    assert judge.distances(real)["fd_lite0"] == pytest.approx(0, abs=1e-2)
    near, far = judge.distances(make_images(12, 1)), judge.distances(255 - make_images(12, 1) // 8)
    assert 0 < near["fd_lite0"] < far["fd_lite0"]


# --- scores -------------------------------------------------------------------------------------


def test_every_candidate_of_every_arm_is_one_row(scorer: Scorer, arms: dict[str, Arm], zoo: Zoo) -> None:
    scores, shown = score(scorer, arms, zoo, SETTINGS)
    assert list(scores.columns) == [
        "arm", "candidate", "checkpoint", "rows", "select", "validation",
        "validation_fd_lite0", "validation_fid", "distance",
    ]  # fmt: skip
    assert list(dict.fromkeys(scores["arm"])) == ["floor", "no_lora", *arms]
    assert len(scores) == 2 + 1 + 9
    assert (scores["validation"] == scores["validation_fd_lite0"]).all()
    floor = scores[scores["arm"] == "floor"]
    assert floor["validation"].tolist() == [JUDGE.distances(real)["fd_lite0"] for real in FLOOR]
    assert floor[["select", "distance"]].isna().all(axis=None)
    assert (scores["rows"] == 8)[scores["arm"] != "floor"].all()
    assert scores.loc[scores["arm"] == "condpdiff", "select"].nunique() == 4  # candidates differ
    assert scores.loc[scores["arm"] == "condpdiff", "validation"].nunique() == 4
    scorer.merge(arms["condpdiff"].vectors[2])
    row = scores[(scores["arm"] == "condpdiff") & (scores["candidate"] == 2)].iloc[0]
    assert row["select"] == -scorer.losses("select").mean()
    made = scorer.generate(PROMPTS.captions, PROMPTS.seeds, 2, 1.0)
    assert row["validation_fd_lite0"] == JUDGE.distances(made)["fd_lite0"]
    assert set(shown) == {"no_lora", *arms}


def test_selected_candidates_images_are_shown(scorer: Scorer, arms: dict[str, Arm], zoo: Zoo) -> None:
    scores, shown = score(scorer, arms, zoo, SETTINGS)
    scorer.merge(arms["condpdiff"].vectors[winner(scores, "condpdiff")])
    assert np.array_equal(shown["condpdiff"], scorer.generate(PROMPTS.captions, PROMPTS.seeds, 2, 1.0))
    scorer.merge(None)
    assert np.array_equal(shown["no_lora"], scorer.generate(PROMPTS.captions, PROMPTS.seeds, 2, 1.0))
    assert np.array_equal(shown["soup"], shown["zero_decode"])  # the same vector makes the same images


def test_distance_is_to_the_nearest_checkpoint_and_for_originals_to_the_nearest_other(
    scorer: Scorer, arms: dict[str, Arm], zoo: Zoo
) -> None:
    few = {"original": arms["original"], "condpdiff": Arm(zoo.theta[[3]], [None])}
    scores, _ = score(scorer, few, zoo, RACING.model_copy(update={"select": "full"}))
    found = scores.set_index(["arm", "candidate"])["distance"]
    others = torch.cdist(zoo.theta[[1]].double(), zoo.theta[torch.arange(8) != 1].double()).min()
    assert found["original", 0] == pytest.approx(float(others), rel=1e-5)
    assert found["condpdiff", 0] == 0.0
    assert np.isnan(found["no_lora", 0])


def test_candidate_whose_loss_is_no_number_has_no_score_and_is_not_selected(scorer: Scorer, zoo: Zoo) -> None:
    broken = torch.stack([torch.full_like(zoo.theta[0], float("nan")), zoo.theta[0]])
    found = run_arm(scorer, JUDGE, "broken", broken, PROMPTS, SETTINGS)
    assert np.isnan(found[0].select)
    assert np.isnan(list(found[0].validation.values())).all()
    assert first_best(np.array([c.select for c in found])) == 1
    assert np.isfinite(found[1].validation["fd_lite0"])


# --- racing -------------------------------------------------------------------------------------


def test_only_the_winner_of_a_race_generates_and_only_finalists_have_a_select_score(
    racing_scorer: Scorer, arms: dict[str, Arm], zoo: Zoo
) -> None:
    scores, shown = score(racing_scorer, arms, zoo, RACING)
    assert set(shown) == {"no_lora", *arms}
    validation = [c for c in scores if c.startswith("validation")]
    for arm, rows in scores[scores["arm"] != "floor"].groupby("arm"):
        finalist, best = (rows["rows"] == 8).to_numpy(), winner(scores, str(arm))
        assert finalist[best]
        assert (rows["select"].notna() == finalist).all()
        others = rows.index != rows.index[best]
        assert rows[validation].isna().all(axis=1).tolist() == others.tolist()
    assert (scores["rows"] < 8)[scores["arm"] == "condpdiff"].any()


def test_a_finalist_of_a_race_scores_as_in_full(
    scorer: Scorer, racing_scorer: Scorer, arms: dict[str, Arm], zoo: Zoo
) -> None:
    full, _ = score(scorer, arms, zoo, SETTINGS)
    found, _ = score(racing_scorer, arms, zoo, RACING)
    columns = ["rows", "select", "validation", "distance"]
    scored = found["validation"].notna()
    pd.testing.assert_frame_equal(found.loc[scored, columns], full.loc[scored, columns], rtol=1e-5)


def test_of_a_race_without_numbers_the_first_is_selected(racing_scorer: Scorer, zoo: Zoo) -> None:
    broken = torch.full((3, zoo.layout.K), float("nan"))
    found = run_arm(racing_scorer, JUDGE, "broken", broken, PROMPTS, RACING)
    assert np.isnan([c.select for c in found]).all()
    assert found[0].shown is not None


@pytest.mark.parametrize("settings", [SETTINGS, RACING], ids=["full", "racing"])
def test_passes_tell_what_was_done_and_what_full_would_have_done(
    base: Path, arms: dict[str, Arm], zoo: Zoo, settings: Eval
) -> None:
    scorer = make_scorer(base, zoo, settings)
    scores, _ = score(scorer, arms, zoo, settings)
    doses = score_doses(scorer, zoo.theta, zoo.theta[:4].unflatten(0, (2, 2)), torch.tensor([0.0, 1.0]))
    passes = count_passes(scorer, scores, doses, settings)
    assert passes["select"] == settings.select
    full = {"select": 10 * 8, "validation": 10 * 5, "loss": 5 * 3}
    assert {split: counts["full"] for split, counts in passes["rows"].items()} == full
    done = {split: counts["done"] for split, counts in passes["rows"].items()}
    if settings.select == "full":
        assert done == full
    else:  # of each arm and of no LoRA one set of images
        assert done == {"select": scores["rows"].sum(), "validation": 5 * 5, "loss": 5 * 3}


# --- doses, images, trajectories ----------------------------------------------------------------


def test_doses_stand_beside_the_soup_with_their_loss(scorer: Scorer, zoo: Zoo) -> None:
    doses = zoo.theta[:6].unflatten(0, (2, 3))
    found = score_doses(scorer, zoo.theta, doses, torch.tensor([0.1, 1.0]))
    assert list(found.columns) == ["arm", "asked", "candidate", "loss", "validation"]
    assert found["arm"].tolist() == ["soup"] + ["condpdiff"] * 6
    assert found["asked"].tolist()[1:] == [0.1, 0.1, 0.1, 1.0, 1.0, 1.0]
    assert found["candidate"].tolist() == [0, 0, 1, 2, 0, 1, 2]
    assert found["validation"].isna().all()
    scorer.merge(doses[1, 2])
    assert found["loss"].iloc[-1] == scorer.losses("loss").mean()
    assert scorer.passes["images"] == 0


@pytest.mark.parametrize("shape", [(0, 4), (5, 0)])
def test_no_doses_are_a_header_alone(scorer: Scorer, zoo: Zoo, shape: tuple[int, int]) -> None:
    found = score_doses(scorer, zoo.theta, torch.zeros(*shape, zoo.layout.K), torch.zeros(shape[0]))
    assert found.to_csv(index=False) == "arm,asked,candidate,loss,validation\n"
    assert not scorer.passes


def test_images_know_their_prompt_and_seed(tmp_path: Path) -> None:
    prompts = Prompts(["good, very good", "Grüße", "чайка"], [0, 1, 2])
    pixels = make_images(3, 5)
    rows = VALIDATION.assign(caption=prompts.captions)
    write_images(tmp_path, prompts, {"condpdiff": pixels}, rows)
    table = pd.read_csv(tmp_path / "images.csv")
    assert list(table.columns) == ["arm", "file", "prompt", "seed"]
    assert table["arm"].tolist() == ["real"] * 3 + ["condpdiff"] * 3
    assert table["prompt"].tolist() == prompts.captions * 2
    assert table["seed"][:3].isna().all()
    for i in range(3):
        row = table.iloc[3 + i]
        image = Image.open(tmp_path / row["file"])
        image.load()
        assert np.array_equal(np.asarray(image), pixels[i])
        assert image.text == {"prompt": prompts.captions[i], "seed": str(int(row["seed"]))}  # type: ignore[attr-defined]
        real = Image.open(tmp_path / table["file"][i])
        assert np.array_equal(np.asarray(real), images(rows)[i])  # of the same caption


def test_trajectories_lie_among_checkpoints_and_soup(zoo: Zoo, tmp_path: Path) -> None:
    paths = torch.randn(2, 3, zoo.layout.K, generator=torch.Generator().manual_seed(0))
    write_trajectories(tmp_path, zoo.theta, paths)
    table = pd.read_csv(tmp_path / "trajectories.csv")
    assert table["arm"].tolist() == ["checkpoint"] * 8 + ["soup"] + ["condpdiff"] * 6
    assert table["candidate"].tolist() == [*range(8), 0, 0, 0, 0, 1, 1, 1]
    assert table["point"][9:].tolist() == [0, 1, 2, 0, 1, 2]
    assert table["point"][:9].isna().all()
    found = read_tensors(tmp_path / "trajectories.safetensors")["distances"]
    vectors = torch.cat([zoo.theta, zoo.theta.mean(0, keepdim=True), paths.flatten(0, 1)]).double()
    torch.testing.assert_close(found.double(), torch.cdist(vectors, vectors), rtol=1e-4, atol=1e-4)


def test_no_trajectories_leave_checkpoints_and_soup(zoo: Zoo, tmp_path: Path) -> None:
    write_trajectories(tmp_path, zoo.theta, torch.empty(0, 3, zoo.layout.K))
    assert pd.read_csv(tmp_path / "trajectories.csv")["arm"].tolist() == ["checkpoint"] * 8 + ["soup"]


# --- the whole ----------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    folder = tmp_path / "data/tasks/waves"
    folder.mkdir(parents=True)
    for seed, (split, count) in enumerate({"train": 12, "held_out": 12, "validation": 4}.items()):
        make_style_rows(count, seed).to_parquet(folder / f"{split}.parquet", index=False)
    return folder


def run(base: Path, zoo: Zoo, data: Path, out: Path, settings: Eval = SETTINGS) -> pd.DataFrame:
    out.mkdir()
    few = {"original": Arm(zoo.theta[[7]], [7]), "condpdiff": Arm(zoo.theta[:1] + 0.01, [None])}
    samples = {
        "theta": few["condpdiff"].vectors,
        "trajectories": zoo.theta[:4].unflatten(0, (2, 2)),
        "asked": torch.tensor([1.0]),
        "doses": zoo.theta[None, :1],
    }
    return evaluate(make_style_task(), zoo, few, samples, settings, Performance(rows=3), data=data, base=base, out=out)


def test_the_same_input_gives_the_same_bytes(base: Path, zoo: Zoo, prepared: Path, tmp_path: Path) -> None:
    scores = run(base, zoo, prepared, tmp_path / "one")
    run(base, zoo, prepared, tmp_path / "two")
    assert scores["arm"].tolist() == ["floor", "floor", "no_lora", "original", "condpdiff"]
    assert np.isfinite(scores["validation_fd_lite0"]).all()
    assert (scores["validation"] > 0).all()
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    names = {"scores.csv", "doses.csv", "passes.json", "images.csv", "trajectories.csv", "trajectories.safetensors"}
    assert {str(file) for file in files if file.suffix != ".png"} == names
    assert len(files) == len(names) + 4 * 5  # real, no_lora, original, condpdiff
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
    assert read_json(tmp_path / "one/passes.json")["rows"]["validation"] == {"done": 15, "full": 15}


def test_fewer_than_two_validation_images_are_one_line(base: Path, zoo: Zoo, prepared: Path, tmp_path: Path) -> None:
    make_style_rows(1, 0).to_parquet(prepared / "validation.parquet", index=False)
    with pytest.raises(UserError, match=r"validation.parquet: found 1 images, allowed: at least 2"):
        run(base, zoo, prepared, tmp_path / "out")


def test_a_single_generated_image_is_one_line(base: Path, zoo: Zoo, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params.yaml: eval.images: found 1 images, allowed: at least 2"):
        run(base, zoo, prepared, tmp_path / "out", SETTINGS.model_copy(update={"images": 1}))
