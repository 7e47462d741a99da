"""merge-eval's loop over arms and candidates: one rule for all, and races, on random stand-ins of text."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from condpdiff.common.files import read_json, read_tensors
from condpdiff.common.settings import parse
from condpdiff.evaluate.arms import Arm, distance_to_zoo, first_best
from condpdiff.evaluate.candidates import REFERENCE, Candidate, Run, count_passes, splits, table
from condpdiff.evaluate.racing import parts, survivors
from condpdiff.evaluate.settings import Eval
from condpdiff.text.score import Scorer
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.settings import Performance
from tests.stand_ins import make_rows, make_task, make_zoo

KEYS = {"candidates": 4, "extra_candidates": 2, "select_rows": 10, "pca_axes": 4, "batch_tokens": 128}
SETTINGS = parse(Eval, KEYS, "params.yaml", "eval")
RACING = SETTINGS.model_copy(update={"select": "racing"})
BOTH = pytest.mark.parametrize("settings", [SETTINGS, RACING], ids=["full", "racing"])


@dataclass(frozen=True)
class Stand:
    """One task: 12 training, 16 held-out and 4 validation rows, six of which rate checkpoints; a zoo of 8."""

    train: pd.DataFrame
    zoo: Zoo
    scorers: dict[str, Scorer]

    def run(self, settings: Eval) -> Run:
        """Without a LoRA, and no row counted."""
        scorer = self.scorers[settings.select]
        scorer.merge(None)
        scorer.passes.clear()
        return Run(scorer, settings, self.zoo.theta, self.train)


@pytest.fixture(scope="module")
def stand(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Stand:
    data, zoo = tmp_path_factory.mktemp("rows"), make_zoo(base("bert"), count=8)[0]
    for seed, (split, count) in enumerate({"train": 12, "held_out": 16, "validation": 4}.items()):
        make_rows(count, seed).to_parquet(data / f"{split}.parquet", index=False)
    rows = {settings.select: splits(data, settings, Performance(rows=6)) for settings in (SETTINGS, RACING)}
    scorers = {k: Scorer(base("bert"), zoo, make_task(), found, SETTINGS.batch_tokens) for k, found in rows.items()}
    return Stand(make_rows(12, 0), zoo, scorers)


@pytest.fixture(scope="module")
def arms(stand: Stand) -> dict[str, Arm]:
    theta = stand.zoo.theta
    soup = theta.double().mean(0, keepdim=True).float()
    return {
        "original": Arm(theta[[1, 4, 7]], [1, 4, 7]),
        "soup": Arm(soup, [None]),
        "zero_decode": Arm(soup.clone(), [None]),
        "condpdiff": Arm(theta[:4] + 0.01, [None] * 4),
    }


def score(run: Run, arms: dict[str, Arm]) -> tuple[pd.DataFrame, list[Candidate]]:
    rows = run.score_arms(arms)
    return table(rows, run.scorer.metrics), rows


def test_splits_are_read_and_those_that_select_are_others_than_rate_checkpoints(tmp_path: Path) -> None:
    held_out = make_rows(16, 2)
    held_out.to_parquet(tmp_path / "held_out.parquet")
    make_rows(5, 3).to_parquet(tmp_path / "validation.parquet")
    rows = splits(tmp_path, RACING, Performance(rows=6))
    assert rows["loss"]["text"].tolist() == held_out["text"][:6].tolist()
    assert rows["select"]["text"].tolist() == held_out["text"][6:].tolist()
    assert len(rows["validation"]) == 5
    assert [len(rows[name]) for name in rows if name.startswith("select ")] == [2, 3, 5]
    assert set(splits(tmp_path, SETTINGS, Performance(rows=6))) == {"select", "validation", "loss"}


def test_every_candidate_of_every_arm_is_one_row(arms: dict[str, Arm], stand: Stand) -> None:
    scores, rows = score(run := stand.run(SETTINGS), arms)
    scorer = run.scorer
    metrics = [f"validation_{metric}" for metric in scorer.metrics]
    assert list(scores) == ["arm", "candidate", "checkpoint", "rows", "select", "validation", *metrics, "distance"]
    assert list(dict.fromkeys(scores["arm"])) == [REFERENCE, "no_lora", *arms]
    ours = scores[scores["arm"] != REFERENCE]
    assert ours.groupby("arm").size().to_dict() == {"no_lora": 1, **{k: len(a.vectors) for k, a in arms.items()}}
    assert (scores["validation"] == scores[metrics[0]]).all()
    assert (ours["rows"] == 10).all() and ours["select"].notna().all()
    originals = ours.loc[ours["arm"] == "original"]
    assert originals["checkpoint"].tolist() == [1, 4, 7]
    theta = stand.zoo.theta
    assert originals["distance"].tolist() == pytest.approx([distance_to_zoo(theta[i], theta, i) for i in (1, 4, 7)])
    made = ours.loc[ours["arm"] == "condpdiff"]
    assert made["candidate"].tolist() == [0, 1, 2, 3] and made["checkpoint"].isna().all()
    nearest = [distance_to_zoo(vector, theta) for vector in arms["condpdiff"].vectors]
    assert made["distance"].tolist() == pytest.approx(nearest)
    assert scores.loc[scores["arm"].isin([REFERENCE, "no_lora"]), "distance"].isna().all()
    scorer.merge(arms["condpdiff"].vectors[2])
    assert made["select"].iloc[2] == scorer.select_score(scorer.outputs("select"))
    expected, kept = scorer.validate()
    assert made[metrics].iloc[2].tolist() == list(expected.values())
    assert np.array_equal([row.made for row in rows if row.arm == "condpdiff"][2], kept)
    assert len({row.made.tobytes() for row in rows if row.made is not None}) > 3  # candidates differ


def test_finalists_of_a_race_score_as_in_full(arms: dict[str, Arm], stand: Stand) -> None:
    full, _ = score(stand.run(SETTINGS), arms)
    found, rows = score(stand.run(RACING), arms)
    scored, finalists = found["validation"].notna(), found["rows"] == 10
    pd.testing.assert_frame_equal(found[scored], full[scored], rtol=1e-4)
    np.testing.assert_allclose(found["select"][finalists], full["select"][finalists], rtol=1e-4)
    kept = np.array([row.made is not None for row in rows])
    for _, of in found[found["arm"] != REFERENCE].groupby("arm"):
        best = of.index == of.index[first_best(of["select"])]
        assert finalists[of.index][best].all()
        assert (of["select"].notna() == finalists[of.index]).all()
        assert scored[of.index].tolist() == best.tolist() == kept[of.index].tolist()
    assert not finalists[found["arm"] == "condpdiff"].all()


@BOTH
def test_passes_tell_what_was_done_and_spared(arms: dict[str, Arm], stand: Stand, settings: Eval) -> None:
    scores, _ = score(run := stand.run(settings), arms)
    doses = run.score_doses(0.02 + stand.zoo.theta[:6].unflatten(0, (3, 2)), torch.tensor([0.0, 0.5, 1.0]))
    passes = count_passes(run.scorer, scores, doses, settings.select)
    full = {"select": 10 * 10, "validation": (10 + 7) * 4, "loss": 7 * 6}
    assert passes["select"] == settings.select
    assert {split: counts["full"] for split, counts in passes["rows"].items()} == full
    done = {split: counts["done"] for split, counts in passes["rows"].items()}
    if settings.select == "full":  # zero_decode is the soup, and so is the first of the doses
        assert done == full | {"select": 90, "validation": full["validation"] - 2 * 4}
    else:  # the winners of two races, the soup, no LoRA
        seen = int(scores.loc[~scores["arm"].isin([REFERENCE, "zero_decode"]), "rows"].sum())
        assert done == {"select": seen, "validation": 4 * 4, "loss": 7 * 6}


@BOTH
def test_doses_stand_beside_the_soup_with_their_loss(stand: Stand, settings: Eval) -> None:
    doses, run = stand.zoo.theta[:6].unflatten(0, (2, 3)), stand.run(settings)
    scorer = run.scorer
    found = run.score_doses(doses, torch.tensor([0.1, 1.0]))
    assert list(found) == ["arm", "asked", "candidate", "loss", "validation"]
    assert found["arm"].tolist() == ["soup"] + ["condpdiff"] * 6
    assert np.isnan(found["asked"][0]) and found["asked"].tolist()[1:] == [0.1, 0.1, 0.1, 1.0, 1.0, 1.0]
    assert found["candidate"].tolist() == [0, 0, 1, 2, 0, 1, 2]
    scored = settings.select == "full"
    assert found["validation"].notna().all() if scored else found["validation"].isna().all()
    assert set(scorer.passes) == ({"loss", "validation"} if scored else {"loss"})
    scorer.merge(doses[1, 2])
    assert found["loss"].iloc[-1] == scorer.losses("loss").mean()
    if scored:
        assert found["validation"].iloc[-1] == next(iter(scorer.validate()[0].values()))
    none = run.score_doses(doses[:0], torch.zeros(0))
    assert none.to_csv(index=False) == "arm,asked,candidate,loss,validation\n"
    assert run.score_arm("broken", doses[0] * torch.nan)[0].made is not None  # a text without logits has a class, too


def test_the_same_input_gives_the_same_bytes(stand: Stand, tmp_path: Path) -> None:
    theta = stand.zoo.theta
    few = {"original": Arm(theta[[7]], [7]), "condpdiff": Arm(theta[:2] + 0.01, [None] * 2)}
    trajectories, asked = theta[:4].unflatten(0, (2, 2)), torch.tensor([1.0])
    samples = {"trajectories": trajectories, "asked": asked, "doses": theta[None, :1]}
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        stand.run(SETTINGS).evaluate(few, samples, tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        found.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert found[0] == found[1]
    others = {"scores.csv", "doses.csv", "passes.json", "trajectories.csv", "trajectories.safetensors"}
    assert set(found[0]) == others | {"predictions.safetensors"}
    tensors = read_tensors(tmp_path / "one/predictions.safetensors")
    scores = pd.read_csv(tmp_path / "one/scores.csv")
    assert tensors["predictions"].shape == (5, 4) and tensors["predictions"].dtype == torch.float32
    hits = (tensors["predictions"] == tensors["labels"]).double().mean(1) * 100
    assert hits.tolist() == pytest.approx(scores["validation_accuracy"].tolist())
    assert read_json(tmp_path / "one/passes.json")["rows"]["loss"] == {"done": 12, "full": 12}


@pytest.mark.parametrize(("count", "expected"), [(96, [12, 24, 48, 96]), (20, [2, 5, 10, 20]), (3, [2, 3])])
def test_rounds_end_at_growing_shares_of_the_rows_in_their_order(count: int, expected: list[int]) -> None:
    rows = make_rows(count, 0).sample(count, random_state=1)
    found = parts("select", rows)
    pd.testing.assert_frame_equal(pd.concat(found.values()), rows)
    assert list(found) == [f"select {a}:{b}" for a, b in pairwise([0, *expected])]


def test_the_better_half_stays_and_of_the_rest_what_rows_can_not_tell_from_the_leader() -> None:
    random = np.random.default_rng(0)
    rows = random.uniform(0, 10, 20)  # differ far more than candidates do, of which each is worse on every row
    for count, least in ((1, 1), (2, 1), (5, 3)):
        assert survivors(rows + 0.01 * np.arange(count)[:, None], 1.0).tolist() == list(range(least))
    losses = random.normal(1, 1, (8, 5))
    order = np.argsort(losses.mean(1))
    assert set(survivors(losses, 0.0).tolist()) == set(order[:4].tolist())
    assert set(survivors(losses, 100.0).tolist()) == set(order[:6].tolist())  # up to three quarters
    losses = np.ones((4, 3)) + np.arange(3)
    assert survivors(losses, 0.0).tolist() == [0, 1, 2]  # equal ones, in their order
    losses[0, 1] = np.nan  # no number: drops out first
    assert survivors(losses, 100.0).tolist() == [1, 2, 3]
    assert survivors(np.full((4, 3), np.nan), 1.0).tolist() == [0, 1]
