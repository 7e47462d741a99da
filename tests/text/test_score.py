"""Scoring text tasks: W0 + (alpha / r) B A and back, outputs in the rows' order, losses, metrics, the task's head."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk

from condpdiff.common.files import read_tensors
from condpdiff.text.metrics import constant_prediction, score
from condpdiff.text.models import load_model
from condpdiff.text.score import Panel, Scorer, load_head
from condpdiff.zoo.checkpoints import Layout, Zoo, save_zoo, unflatten
from tests.messages import message_of
from tests.stand_ins import make_rows, make_task, make_zoo, save_rows

KINDS = {"classification": 2, "regression": 1}
Base = Callable[[str], Path]


@pytest.fixture(scope="module")
def zoos(base: Base) -> dict[str, Zoo]:
    return {kind: make_zoo(base("bert"), num_outputs=outputs)[0] for kind, outputs in KINDS.items()}


@pytest.fixture(scope="module", params=KINDS)
def scorer(request: pytest.FixtureRequest, base: Base, zoos: dict[str, Zoo]) -> Scorer:
    kind = request.param
    rows = {"select": make_rows(9, 2, kind), "validation": make_rows(21, 3, kind)}
    found = Scorer(base("bert"), zoos[kind], make_task(kind), rows, tokens=64)
    found.merge(zoos[kind].theta[2])
    return found


def test_merged_is_w0_plus_scaled_ba_and_none_restores_w0_to_the_bit(scorer: Scorer, zoos: dict[str, Zoo]) -> None:
    def merged(theta: torch.Tensor | None) -> tuple[list[torch.Tensor], np.ndarray]:
        scorer.merge(theta)
        return [module.weight.clone() for module in scorer.modules.values()], scorer.losses("select")

    zoo = zoos[scorer.data.kind]
    none, other, _, first, again = map(merged, (None, zoo.theta[1], zoo.theta[0] * np.nan, zoo.theta[2], zoo.theta[2]))
    assert all(map(torch.equal, first[0], again[0])) and np.array_equal(first[1], again[1])
    assert first[1].shape == (9,) and first[1].dtype == np.float64 and not np.allclose(first[1], other[1])
    assert all(map(torch.equal, none[0], scorer.base_weights.values()))
    tensors = unflatten(zoo.theta[2], zoo.layout)
    assert len(scorer.modules) == 2 * 4  # layers, projections
    for name, module in scorer.modules.items():
        a, b = (tensors[f"base_model.model.{name}.lora_{m}.weight"] for m in "AB")
        torch.testing.assert_close(module.weight, scorer.base_weights[name] + 4.0 / 2 * b @ a, rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_the_base_is_named(base: Base, scorer: Scorer, zoos: dict[str, Zoo]) -> None:
    assert "theta: found 3 weights" in message_of(scorer.merge, torch.zeros(3))
    name, key, zoo = "bert.embeddings.word_embeddings", next(iter(scorer.modules)), zoos["classification"]
    changes: dict[str, Callable[..., dict[str, object]]] = {
        r"data/base: no module '\S*\.9\.\S*', .*rerun finetune-collect": lambda e: {"key": e.key.replace(".1.", ".9.")},
        r"found \[16, 16\], allowed: \[16, 99\]": lambda e: {"shape": (2, 99) if e.shape[0] == 2 else e.shape},
        f"{name}: found Embedding, allowed: Linear": lambda e: {"key": e.key.replace(key, name)},
    }
    for said, change in changes.items():
        changed = replace(zoo, layout=Layout(tuple(replace(entry, **change(entry)) for entry in zoo.layout.entries)))
        assert re.search(said, message_of(Scorer, base("bert"), changed, make_task(), {}, 64))
    head = {"base_model.model.score.weight": torch.zeros(2)}
    said = message_of(load_head, load_model(base("bert"), 2)[0], head)
    assert "head.safetensors: found 'score.weight', which the base model does not have" in said


def test_predictions_losses_and_scores_are_those_of_the_outputs(scorer: Scorer) -> None:
    """The outputs are the whole model's (test_architectures), of which the scorer leaves out what no head reads."""
    seen: list[int] = []
    last = scorer.model.base_model.encoder.layer[-1].output
    hook = last.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    outputs, labels = scorer.outputs("validation"), scorer.labels["validation"]
    hook.remove()
    assert set(seen) == {1} and outputs.dtype == np.float32 and np.ptp(outputs) > 0.1
    predictions, losses = scorer.predict("validation"), scorer.losses("validation")
    assert losses.dtype == np.float64 and predictions.dtype == np.float32
    if outputs.shape[1] == 2:
        logits = torch.tensor(outputs).double()
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(labels).long(), reduction="none").numpy()
        assert predictions.tolist() == outputs.argmax(1).tolist()
        assert scorer.score("validation", labels) == {"accuracy": 100.0, "f1": 100.0}
        assert scorer.score("validation", 1 - labels) == {"accuracy": 0.0, "f1": 0.0}
    else:
        expected = (outputs[:, 0].astype(np.float64) - labels) ** 2
        assert predictions.tolist() == outputs[:, 0].tolist() and len(np.unique(predictions.round(4))) > 2
        assert set(scorer.score("validation", predictions)) == {"pearson", "spearman"}
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    found, kept = scorer.validate()
    assert found == scorer.score("validation", predictions) and np.array_equal(kept, predictions)


def test_reference_is_what_most_training_rows_say(scorer: Scorer, tmp_path: Path) -> None:
    select, made = scorer.constant(pd.DataFrame({"label": [1.0, 1.0, 0.0]}))
    constant = 1.0 if scorer.metrics[0] == "accuracy" else np.float32(2 / 3)
    assert select.tolist() == [constant] * 9 and made.tolist() == [constant] * 21
    scorer.write(tmp_path, [made, made])
    tensors = read_tensors(tmp_path / "predictions.safetensors")
    assert tensors["predictions"].tolist() == [[constant] * 21] * 2
    assert tensors["labels"].tolist() == scorer.labels["validation"].astype(np.float32).tolist()


def test_a_panel_scores_a_task_with_its_own_head(base: Base, tmp_path: Path, zoos: dict[str, Zoo]) -> None:
    (tmp_path / "base").symlink_to(base("bert"))
    task, zoo = make_task("regression"), zoos["regression"]
    save_rows(tmp_path / "tasks/films", "regression")
    save_zoo(tmp_path / "zoo/films", zoo)
    rows = {"validation": pd.read_parquet(tmp_path / "tasks/films/validation.parquet")}
    panel, alone = Panel("films", task, 64, tmp_path), Scorer(base("bert"), zoo, task, rows, 64)
    for theta in (zoo.theta[2], torch.zeros_like(zoo.theta[2]), zoo.theta[2]):
        alone.merge(theta)
        assert panel.score(theta) == alone.validate()[0][task.metrics[0]]


RNG = np.random.default_rng(0)
Y2, P2 = RNG.integers(0, 2, 200), RNG.integers(0, 2, 200)
Y3, P3 = RNG.integers(0, 3, 200), RNG.integers(0, 3, 200)
YR = RNG.normal(size=200)
PR = YR + RNG.normal(size=200)


def test_metrics_equal_the_libraries_in_percent() -> None:
    expected = {"accuracy": sk.accuracy_score, "f1": sk.f1_score, "matthews": sk.matthews_corrcoef}
    for name, metric in expected.items():
        assert score(P2, Y2, [name]) == {name: pytest.approx(100 * metric(Y2, P2))}
    for name, metric in {"pearson": stats.pearsonr, "spearman": stats.spearmanr}.items():
        assert score(PR, YR, [name]) == {name: pytest.approx(100 * metric(PR, YR).statistic)}


def test_f1_has_one_average_whatever_is_predicted() -> None:
    """Of more than two classes the mean over all of the task, also where rows and predictions hold two alone."""
    every = [0, 1, 2]
    assert score(P3, Y3, ["f1"], every) == {"f1": pytest.approx(100 * sk.f1_score(Y3, P3, average="macro"))}
    two = sk.f1_score(Y2, P2, labels=every, average="macro", zero_division=0)
    assert score(P2, Y2, ["f1"], every) == {"f1": pytest.approx(100 * two)}
    stray = P2.copy()
    stray[0] = 2
    assert abs(score(stray, Y2, ["f1"], every)["f1"] - 100 * two) < 1
    assert score(P2, Y2, ["f1"], [0]) == {"f1": pytest.approx(100 * sk.f1_score(Y2, P2, pos_label=0))}


@pytest.mark.filterwarnings("error")
def test_a_constant_scores_zero_without_a_warning() -> None:
    for name in ("pearson", "spearman"):
        assert score(np.full(200, 0.3), YR, [name]) == score(PR, np.zeros(200), [name]) == {name: 0.0}
    for name in ("f1", "matthews"):
        assert score(np.zeros(200), Y2, [name]) == {name: 0.0}


def test_constant_is_the_majority_class_the_first_of_equals_or_the_mean() -> None:
    assert constant_prediction(np.array([2.0, 1, 2, 0]), "classification") == 2
    assert constant_prediction(np.array([1.0, 0]), "classification") == 0
    assert constant_prediction(np.array([1.0, 2, 6]), "regression") == 3
