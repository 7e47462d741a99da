"""merge-eval's loop over arms and candidates: one rule for all, on random stand-ins of text."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from condpdiff.common.files import read_tensors
from condpdiff.common.settings import parse
from condpdiff.evaluate.arms import Arm, distance_to_zoo
from condpdiff.evaluate.candidates import REFERENCE, Run, splits
from condpdiff.evaluate.settings import Eval
from condpdiff.text.score import Scorer
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.settings import Performance
from tests.stand_ins import make_rows, make_task, make_zoo

KEYS = {"candidates": 4, "extra_candidates": 2, "select_rows": 10, "pca_axes": 4, "batch_tokens": 128}
SETTINGS = parse(Eval, KEYS, "params.yaml", "eval")


@dataclass(frozen=True)
class Stand:
    """One task: 12 training, 16 held-out and 4 validation rows, six of which rate checkpoints; a zoo of 8."""

    train: pd.DataFrame
    zoo: Zoo
    scorer: Scorer

    def run(self) -> Run:
        return Run(self.scorer, self.zoo.theta, self.train)


@pytest.fixture(scope="module")
def stand(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Stand:
    data, zoo = tmp_path_factory.mktemp("rows"), make_zoo(base("bert"), count=8)[0]
    for seed, (split, count) in enumerate({"train": 12, "held_out": 16, "validation": 4}.items()):
        make_rows(count, seed).to_parquet(data / f"{split}.parquet", index=False)
    rows = splits(data, SETTINGS, Performance(rows=6))
    return Stand(make_rows(12, 0), zoo, Scorer(base("bert"), zoo, make_task(), rows, SETTINGS.batch_tokens))


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


def test_splits_are_read_and_those_that_select_are_others_than_rate_checkpoints(tmp_path: Path) -> None:
    held_out = make_rows(16, 2)
    held_out.to_parquet(tmp_path / "held_out.parquet")
    make_rows(5, 3).to_parquet(tmp_path / "validation.parquet")
    rows = splits(tmp_path, SETTINGS, Performance(rows=6))
    assert rows["loss"]["text"].tolist() == held_out["text"][:6].tolist()
    assert rows["select"]["text"].tolist() == held_out["text"][6:].tolist()
    assert len(rows["validation"]) == 5 and set(rows) == {"select", "validation", "loss"}


def test_every_candidate_of_every_arm_is_one_row(arms: dict[str, Arm], stand: Stand) -> None:
    scores, outputs = stand.run().score_arms(arms)
    scorer = stand.scorer
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
    assert made["select"].iloc[2] == next(iter(scorer.score("select", scorer.predict("select")).values()))
    expected, kept = scorer.validate()
    assert made[metrics].iloc[2].tolist() == list(expected.values())
    assert np.array_equal(outputs[made.index[2]], kept)
    assert len({each.tobytes() for each in outputs}) > 3  # candidates differ


def test_doses_stand_beside_the_soup_with_their_loss(stand: Stand) -> None:
    doses, run = stand.zoo.theta[:6].unflatten(0, (2, 3)), stand.run()
    found = run.score_doses(doses, torch.tensor([0.1, 1.0]))
    assert list(found) == ["arm", "asked", "candidate", "loss", "validation"]
    assert found["arm"].tolist() == ["soup"] + ["condpdiff"] * 6
    assert np.isnan(found["asked"][0]) and found["asked"].tolist()[1:] == [0.1, 0.1, 0.1, 1.0, 1.0, 1.0]
    assert found["candidate"].tolist() == [0, 0, 1, 2, 0, 1, 2]
    stand.scorer.merge(doses[1, 2])
    assert found["loss"].iloc[-1] == stand.scorer.losses("loss").mean()
    assert found["validation"].iloc[-1] == next(iter(stand.scorer.validate()[0].values()))
    none = run.score_doses(doses[:0], torch.zeros(0))
    assert none.to_csv(index=False) == "arm,asked,candidate,loss,validation\n"


def test_a_candidate_is_scored_once_and_one_without_logits_has_a_class_too(
    arms: dict[str, Arm], stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, merged = stand.run(), []
    monkeypatch.setattr(stand.scorer, "merge", merged.append)
    monkeypatch.setattr(stand.scorer, "validate", lambda: ({"accuracy": 1.0}, np.zeros(4)))
    run.score_arms(arms)
    assert len(merged) == 1 + 3 + 1 + 4  # no LoRA, and all but zero_decode, which is the soup
    monkeypatch.undo()
    assert stand.run().score(arms["soup"].vectors[0] * torch.nan).made.shape == (4,)


def test_the_same_input_gives_the_same_bytes(stand: Stand, tmp_path: Path) -> None:
    theta = stand.zoo.theta
    few = {"original": Arm(theta[[7]], [7]), "condpdiff": Arm(theta[:2] + 0.01, [None] * 2)}
    trajectories, asked = theta[:4].unflatten(0, (2, 2)), torch.tensor([1.0])
    samples = {"trajectories": trajectories, "asked": asked, "doses": theta[None, :1]}
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        stand.run().evaluate(few, samples, tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        found.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert found[0] == found[1]
    others = {"scores.csv", "doses.csv", "trajectories.csv", "trajectories.safetensors"}
    assert set(found[0]) == others | {"predictions.safetensors"}
    tensors = read_tensors(tmp_path / "one/predictions.safetensors")
    scores = pd.read_csv(tmp_path / "one/scores.csv")
    assert tensors["predictions"].shape == (5, 4) and tensors["predictions"].dtype == torch.float32
    hits = (tensors["predictions"] == tensors["labels"]).double().mean(1) * 100
    assert hits.tolist() == pytest.approx(scores["validation_accuracy"].tolist())
