"""finetune-collect of a text task on a random stand-in: its loss, its rows, its score. The rest: zoo/test_collect."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from condpdiff.common.files import read_json, read_rows, write_json
from condpdiff.text.finetune import TextFinetuning, finetune
from condpdiff.text.score import Scorer
from condpdiff.zoo.checkpoints import load_zoo
from tests.stand_ins import collect_with_two_processes, make_collect, make_task, save_rows

DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def finetuning(base: Path, data: Path, kind: str = "classification") -> TextFinetuning:
    return TextFinetuning("films", make_task(kind), make_collect(), data, base)


def test_last_state_scores_as_the_last_validation(films: Path, base) -> None:
    task, folder = make_task(), Path("zoo")
    finetune("films", task, make_collect(), films, base("bert"), folder)
    zoo = load_zoo(folder, 4)
    assert (zoo.config["task"], zoo.config["num_outputs"]) == ("films", 2)
    scorer = Scorer(base("bert"), zoo, task, {"validation": read_rows(films, "validation")}, 256)
    scorer.merge(zoo.theta[-1])
    found, curve = scorer.score("validation", scorer.predict("validation")), pd.read_csv(folder / "validation.csv")
    assert curve["step"].tolist() == [0, 4, 8, 12]
    assert curve["score"].iloc[-1] == pytest.approx(found["accuracy"])


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_loss_is_the_models_own(kind: str, base, tmp_path: Path) -> None:
    one = finetuning(base("bert"), save_rows(tmp_path / "rows", kind), kind)
    loss, (inputs, labels) = one.start().eval(), one.batches()(3)
    assert labels.dtype == (torch.float32 if kind == "regression" else torch.int64)
    torch.testing.assert_close(loss(inputs, labels), loss.model(**inputs, labels=labels).loss)


def test_batch_holds_rows_of_one_length_with_their_labels_and_no_more_padding(base, films: Path) -> None:
    one = finetuning(base("bert"), films)
    rows, found = read_rows(films, "train"), []
    for step in range(one.steps):
        inputs, labels = one.batches()(step)
        assert inputs["input_ids"].shape[0] == 4
        assert inputs["attention_mask"].sum(1).max() == inputs["input_ids"].shape[1]
        for ids, mask, label in zip(inputs["input_ids"], inputs["attention_mask"], labels, strict=True):
            text = one.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)
            found.append((text, float(label)))
    known = set(zip(rows["text"], rows["label"], strict=True))
    assert set(found) <= known and len(set(found)) > 0.9 * len(known)


def test_two_processes_collect_nearly_the_states_of_one(base, films: Path) -> None:
    """Nearly: each pads its rows to the longest of its own, and sums run in another order. Dropout is off here."""
    shutil.copytree(base("bert"), "data/base")
    settings = read_json(Path("data/base/config.json"))
    write_json(Path("data/base/config.json"), settings | dict.fromkeys(DROPOUTS, 0.0))
    said = collect_with_two_processes("films", make_task(), make_collect())
    assert said.count("films: accuracy") == 1
    finetune("films", make_task(), make_collect(), films, Path("data/base"), Path("one"))
    folders = Path("data/zoo/films"), Path("one")
    two, one = (load_zoo(folder).theta for folder in folders)
    torch.testing.assert_close(two, one, rtol=0, atol=1e-4)
    assert (one[0] - one[-1]).abs().max() > 1e-2
    losses = [pd.read_csv(folder / "loss.csv")["loss"].tolist() for folder in folders]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)  # of both processes' rows


def test_verdict_compares_the_last_score_with_a_constant(base, films: Path, tmp_path: Path) -> None:
    one = finetuning(base("bert"), films)
    assert one.verdict([(0, 9.0), (9, 51.0)]) == ("accuracy 51.0 after the last step, a constant gives 50.0", None)
    one = finetuning(base("bert"), save_rows(tmp_path / "rows", "regression"), "regression")
    assert one.verdict([(0, 5.0), (9, 3.0)]) == ("pearson 3.0 after the last step, a constant gives 0.0", None)
    assert one.verdict([(9, -3.0)])[1] == "a constant"
    assert np.isfinite(one.score(one.start().model))
