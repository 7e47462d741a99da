"""merge-eval: every arm is scored by one rule, on a random stand-in."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from condpdiff.autoencoder.models import encode_all
from condpdiff.autoencoder.settings import Autoencoder as AeSettings
from condpdiff.autoencoder.train import train
from condpdiff.common.files import read_json, read_tensors
from condpdiff.common.settings import parse
from condpdiff.evaluate.arms import Arm, build_arms, distance_to_zoo, winner, write_geometry
from condpdiff.evaluate.settings import Eval
from condpdiff.text.evaluation import count_passes, run_arm, score_arms, score_doses, splits
from condpdiff.text.score import Scorer
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.normalization import Moments, normalise, statistics_of
from condpdiff.zoo.normalized import Frame
from condpdiff.zoo.settings import Performance
from tests.stand_ins import make_rows, make_task, make_zoo

ARMS = [
    "original", "soup", "soup_16", "gaussian", "pca_gaussian", "checkpoint_noise", "ae_reconstruction", "zero_decode",
    "condpdiff",
]  # fmt: skip
SETTINGS = parse(
    Eval,
    {"candidates": 4, "extra_candidates": 3, "select_rows": 10, "pca_axes": 4, "batch_tokens": 128},
    "params.yaml",
    "eval",
)

RACING = SETTINGS.model_copy(update={"select": "racing"})


@pytest.fixture
def zoo(base) -> Zoo:
    return make_zoo(base("bert"), "bert", count=8)[0]


@pytest.fixture
def frame(zoo: Zoo) -> Frame:
    statistics = statistics_of("task", {"films": Moments.of([zoo.theta])}, zoo.layout)["films"]
    return Frame(statistics, zoo.theta.double().mean(0).float(), torch.arange(zoo.layout.K))


@pytest.fixture
def arms(zoo: Zoo, frame: Frame) -> dict[str, Arm]:
    pca = {"arch": "pca", "latent_channels": 1, "latent_length": 8, "patch": 1, "width": 1, "depth": 0}
    pca |= {"noise": 0, "input_noise": 0, "steps": 1, "batch_size": 1, "lr": 1}
    model, _, _ = train(normalise(zoo.theta, frame.statistics), parse(AeSettings, pca, "params.yaml", "ae"))
    assert encode_all(model, torch.zeros(1, zoo.layout.K)).shape == (1, 1, 8)
    samples = zoo.theta[:5] + 0.01
    return build_arms(zoo.theta, samples, frame, model, SETTINGS, torch.Generator().manual_seed(0))


@pytest.fixture
def scorer(base, zoo: Zoo) -> Scorer:
    return make_scorer(base("bert"), zoo, SETTINGS)


@pytest.fixture
def racing_scorer(base, zoo: Zoo) -> Scorer:
    return make_scorer(base("bert"), zoo, RACING)


def make_scorer(base: Path, zoo: Zoo, settings: Eval) -> Scorer:
    rows = splits(make_rows(16, 2), make_rows(20, 3), settings, Performance(rows=6))
    return Scorer(base, zoo, make_task(), rows, settings.batch_tokens)


def test_candidates_are_selected_on_other_held_out_rows_than_rate_checkpoints() -> None:
    held_out = make_rows(16, 2)
    rows = splits(held_out, make_rows(20, 3), RACING, Performance(rows=6))
    assert rows["loss"]["text"].tolist() == held_out["text"][:6].tolist()
    assert rows["select"]["text"].tolist() == held_out["text"][6:].tolist()
    assert [len(rows[name]) for name in rows if name.startswith("select ")] == [2, 3, 5]
    assert set(splits(held_out, held_out, SETTINGS, Performance(rows=6))) == {"select", "validation", "loss"}


def test_arms_stand_in_the_order_of_the_report_with_their_counts(arms: dict[str, Arm]) -> None:
    assert list(arms) == ARMS
    assert [len(arm.vectors) for arm in arms.values()] == [4, 1, 4, 4, 4, 4, 3, 1, 5]
    assert all(len(arm.checkpoints) == len(arm.vectors) for arm in arms.values())


def test_originals_and_reconstructions_know_their_checkpoint(arms: dict[str, Arm], zoo: Zoo) -> None:
    assert arms["original"].checkpoints[-1] == 7
    assert torch.equal(arms["original"].vectors, zoo.theta[arms["original"].checkpoints])
    rebuilt = arms["ae_reconstruction"]
    torch.testing.assert_close(rebuilt.vectors, zoo.theta[rebuilt.checkpoints], rtol=0, atol=1e-4)  # 8 numbers suffice
    assert arms["condpdiff"].checkpoints == [None] * 5


def test_noise_takes_a_checkpoint_as_far_as_samples_are_from_their_nearest_one(arms: dict[str, Arm], zoo: Zoo) -> None:
    noisy = arms["checkpoint_noise"]
    assert len(set(noisy.checkpoints)) == 4
    moved = (noisy.vectors - zoo.theta[noisy.checkpoints]).norm(dim=1)
    reach = np.median([distance_to_zoo(sample, zoo.theta) for sample in arms["condpdiff"].vectors])
    torch.testing.assert_close(moved, torch.full((4,), float(reach)), rtol=1e-3, atol=1e-4)


def test_zero_decode_is_the_soup_under_task(arms: dict[str, Arm]) -> None:
    assert torch.equal(arms["zero_decode"].vectors, arms["soup"].vectors)


def test_every_candidate_of_every_arm_is_one_row(scorer: Scorer, arms: dict[str, Arm], zoo: Zoo) -> None:
    labels = np.array([1.0, 1.0, 0.0])
    scores, predictions = score_arms(scorer, arms, zoo.theta, labels, SETTINGS)
    assert list(scores.columns) == [
        "arm", "candidate", "checkpoint", "rows", "select", "validation",
        "validation_accuracy", "validation_f1", "distance",
    ]  # fmt: skip
    assert list(dict.fromkeys(scores["arm"])) == ["majority", "no_lora", *ARMS]
    assert len(scores) == 2 + 30
    assert predictions.shape == (32, 20)
    assert predictions.dtype == np.float32
    assert (scores["validation"] == scores["validation_accuracy"]).all()
    for i, row in scores.iterrows():  # the stored predictions are those that were scored
        assert row["validation"] == pytest.approx(100 * np.mean(predictions[i] == scorer.labels["validation"]))
    assert (predictions[0] == 1).all()  # the majority of the training labels
    assert (scores["rows"] == 10).all()
    assert scores["select"].between(0, 100).all()
    assert scores.loc[scores["arm"] == "condpdiff", "select"].nunique() > 1  # candidates differ


def test_arms_of_equal_vectors_score_equal_and_no_lora_is_untouched_by_others(
    scorer: Scorer, arms: dict[str, Arm], zoo: Zoo
) -> None:
    _, first = score_arms(scorer, arms, zoo.theta, np.array([0.0]), SETTINGS)
    same = {"zero": arms["zero_decode"], "soup": arms["soup"]}
    again, second = score_arms(scorer, same, zoo.theta, np.array([0.0]), SETTINGS)
    assert (second[2] == second[3]).all()
    assert (first[1] == second[1]).all()  # no LoRA, before and after all merges
    assert again["candidate"].tolist() == [0, 0, 0, 0]


def test_distance_is_to_the_nearest_checkpoint_and_for_originals_to_the_nearest_other(
    scorer: Scorer, arms: dict[str, Arm], zoo: Zoo
) -> None:
    theta = zoo.theta.clone()
    theta[6] = theta[7] + 0.5 / theta.shape[1] ** 0.5  # 0.5 from the last one
    few = {"original": Arm(theta[[2, 7]], [2, 7]), "condpdiff": Arm(theta[[3]], [None])}
    scores, _ = score_arms(scorer, few, theta, np.array([0.0]), SETTINGS)
    found = scores.set_index(["arm", "candidate"])["distance"]
    assert found["original", 1] == pytest.approx(0.5, rel=1e-3)
    others = torch.cdist(theta[[2]].double(), theta[torch.arange(8) != 2].double()).min()
    assert found["original", 0] == pytest.approx(float(others), rel=1e-5)
    assert found["condpdiff", 0] == 0.0
    assert np.isnan(found["majority", 0])
    assert np.isnan(found["no_lora", 0])


def test_original_of_a_single_checkpoint_has_itself_for_neighbour(scorer: Scorer, zoo: Zoo) -> None:
    one = zoo.theta[:1]
    scores, _ = score_arms(scorer, {"original": Arm(one, [0])}, one, np.array([0.0]), SETTINGS)
    assert scores["distance"].iloc[-1] == 0.0


def test_only_the_winner_of_a_race_has_validation_scores_and_only_finalists_a_select_score(
    racing_scorer: Scorer, arms: dict[str, Arm], zoo: Zoo
) -> None:
    scores, predictions = score_arms(racing_scorer, arms, zoo.theta, np.array([1.0]), RACING)
    validation = [c for c in scores if c.startswith("validation")]
    for arm, rows in scores.groupby("arm"):
        finalist, best = (rows["rows"] == 10).to_numpy(), winner(scores, str(arm))
        assert finalist[best]
        assert (rows["select"].notna() == finalist).all()
        others = rows.index != rows.index[best]
        assert rows[validation].isna().all(axis=1).tolist() == others.tolist()
        assert np.isnan(predictions[rows.index]).all(axis=1).tolist() == others.tolist()
    assert (scores["rows"] < 10).any()


def test_a_finalist_of_a_race_scores_as_in_full(
    scorer: Scorer, racing_scorer: Scorer, arms: dict[str, Arm], zoo: Zoo
) -> None:
    some = {"original": arms["original"], "condpdiff": arms["condpdiff"]}
    full, expected = score_arms(scorer, some, zoo.theta, np.array([1.0]), SETTINGS)
    found, predictions = score_arms(racing_scorer, some, zoo.theta, np.array([1.0]), RACING)
    finalists, scored = found["rows"] == 10, found["validation"].notna()
    pd.testing.assert_frame_equal(found[scored], full[scored])
    assert found["select"][finalists].tolist() == full["select"][finalists].tolist()
    assert np.array_equal(predictions[scored], expected[scored])


def test_a_race_that_none_drops_out_of_is_won_by_the_winner_in_full(
    scorer: Scorer, racing_scorer: Scorer, zoo: Zoo
) -> None:
    two = zoo.theta[:2]  # the better half is one, and the other one never clearly worse
    endless = RACING.model_copy(update={"race_z": 1e9})
    found = run_arm(racing_scorer, "two", two, endless)
    full = run_arm(scorer, "two", two, SETTINGS)
    assert [c.rows for c in found] == [10, 10]
    select = [scorer.score("select", c.select)["accuracy"] for c in full]
    assert found[int(np.argmax(select))].validation is not None


@pytest.mark.parametrize("settings", [SETTINGS, RACING], ids=["full", "racing"])
def test_passes_tell_what_was_done_and_what_full_would_have_done(
    base, arms: dict[str, Arm], zoo: Zoo, settings: Eval
) -> None:
    scorer = make_scorer(base("bert"), zoo, settings)
    scores, _ = score_arms(scorer, arms, zoo.theta, np.array([1.0]), settings)
    doses = score_doses(scorer, zoo.theta, zoo.theta[:6].unflatten(0, (3, 2)), torch.tensor([0.0, 0.5, 1.0]), settings)
    passes = count_passes(scorer, scores, doses, settings)
    assert passes["select"] == settings.select
    full = {"select": 31 * 10, "validation": (31 + 7) * 20, "loss": 7 * 6}
    assert {split: counts["full"] for split, counts in passes["rows"].items()} == full
    done = {split: counts["done"] for split, counts in passes["rows"].items()}
    if settings.select == "full":
        assert done == full
    else:
        raced = scores[scores["arm"] != "majority"]
        assert done == {"select": raced["rows"].sum(), "validation": 10 * 20, "loss": 7 * 6}  # a winner an arm


def test_doses_stand_beside_the_soup_with_their_loss(scorer: Scorer, zoo: Zoo) -> None:
    doses = zoo.theta[:6].unflatten(0, (2, 3))
    found = score_doses(scorer, zoo.theta, doses, torch.tensor([0.1, 1.0]), SETTINGS)
    assert list(found.columns) == ["arm", "asked", "candidate", "loss", "validation"]
    assert found["arm"].tolist() == ["soup"] + ["condpdiff"] * 6
    assert found["asked"].tolist()[1:] == [0.1, 0.1, 0.1, 1.0, 1.0, 1.0]
    assert np.isnan(found["asked"][0])
    assert found["candidate"].tolist() == [0, 0, 1, 2, 0, 1, 2]
    scorer.merge(doses[1, 2])
    assert found["loss"].iloc[-1] == pytest.approx(scorer.losses("loss").mean())
    assert found["validation"].iloc[-1] == scorer.score("validation", scorer.predict("validation"))["accuracy"]


def test_doses_have_no_validation_score_in_racing(racing_scorer: Scorer, zoo: Zoo) -> None:
    found = score_doses(racing_scorer, zoo.theta, zoo.theta[None, :2], torch.tensor([0.5]), RACING)
    assert found["loss"].notna().all()
    assert found["validation"].isna().all()
    assert racing_scorer.passes == {"loss": 3 * 6}


@pytest.mark.parametrize("shape", [(0, 4), (5, 0)])
def test_no_doses_are_a_header_alone(scorer: Scorer, zoo: Zoo, shape: tuple[int, int]) -> None:
    found = score_doses(scorer, zoo.theta, torch.zeros(*shape, zoo.layout.K), torch.zeros(shape[0]), SETTINGS)
    assert found.to_csv(index=False) == "arm,asked,candidate,loss,validation\n"
    assert not scorer.passes


def test_geometry_covers_the_zoo_and_every_arm_but_copies_of_it(arms: dict[str, Arm], zoo: Zoo, tmp_path: Path) -> None:
    write_geometry(tmp_path, arms, zoo.theta)
    points = pd.read_csv(tmp_path / "points.csv")
    found = read_tensors(tmp_path / "distances.safetensors")["distances"]
    assert found.shape == (len(points), len(points))
    counts: dict[str, Any] = points["arm"].value_counts(sort=False).to_dict()
    drawn = dict.fromkeys(("soup_16", "gaussian", "pca_gaussian", "checkpoint_noise"), 4)
    assert counts == {"checkpoint": 8, "soup": 1, "ae_reconstruction": 3, **drawn, "condpdiff": 5}
    vectors = torch.cat([zoo.theta, arms["soup"].vectors]).double()
    torch.testing.assert_close(found[:9, :9].double(), torch.cdist(vectors, vectors), rtol=1e-4, atol=1e-4)
    spreads = read_json(tmp_path / "spread.json")
    assert set(spreads) == set(counts) - {"soup"}
