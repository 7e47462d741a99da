"""finetune-collect of a text task on a random stand-in: its loss, its rows, its score. The rest: zoo/test_collect."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from condpdiff.common.files import read_json, read_rows, write_json
from condpdiff.text.finetune import TextFinetuning, finetune
from condpdiff.text.score import Scorer
from condpdiff.text.task import Task
from condpdiff.zoo.checkpoints import HEAD, THETA, load_zoo
from condpdiff.zoo.collect import UNFINISHED
from tests.stand_ins import collect_with_two_processes, make_collect, make_rows, make_task, save_rows

DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


class PowerCutError(Exception):
    """Stands for whatever ends a run from outside."""


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def collect_zoo(base, films: Path) -> Callable[..., Path]:
    """Fine-tunes the films; gives the zoo's folder."""

    def run(out: str = "zoo", task: Task | None = None, model_type: str = "bert", **collect: Any) -> Path:
        finetune("films", task or make_task(), make_collect(**collect), films, base(model_type), Path(out))
        return Path(out)

    return run


def finetuning(base: Path, data: Path, kind: str = "classification", **settings: Any) -> TextFinetuning:
    return TextFinetuning("films", make_task(kind, finetune=settings), make_collect(), data, base)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "deberta"])
def test_zoo_of_every_family_holds_different_states(collect_zoo: Callable[..., Path], model_type: str) -> None:
    zoo = load_zoo(collect_zoo(model_type=model_type), 4)
    assert ((zoo.theta[1:] - zoo.theta[:-1]).abs().max(dim=1).values > 1e-4).all()
    assert (zoo.config["task"], zoo.config["num_outputs"]) == ("films", 2)
    assert zoo.config["target_modules"] == sorted(zoo.config["target_modules"])
    heads = ["classifier"] if model_type != "deberta" else ["classifier", "pooler"]
    assert zoo.config["modules_to_save"] == heads


def test_merged_last_state_scores_as_the_last_validation(collect_zoo: Callable[..., Path], films: Path, base) -> None:
    folder = collect_zoo()
    zoo, task = load_zoo(folder, 4), make_task()
    scorer = Scorer(base("bert"), zoo, task, {"validation": read_rows(films, "validation")}, 256)
    scorer.merge(zoo.theta[-1])
    found = scorer.score("validation", scorer.predict("validation"))["accuracy"]
    curve = pd.read_csv(folder / "validation.csv")
    assert curve["step"].tolist() == [0, 4, 8, 12]
    assert curve["score"].iloc[-1] == pytest.approx(found)


def test_every_task_starts_from_one_a_whatever_its_outputs(base, tmp_path: Path) -> None:
    ratings = save_rows(tmp_path / "ratings", "regression")
    classes = make_task().data.model_dump(exclude_none=True)
    tasks = {1: make_task("regression"), 2: make_task(), 3: make_task(data=classes | {"labels": ["a", "b", "c"]})}
    starts = {}
    for outputs, task in tasks.items():
        still = task.model_copy(update={"finetune": task.finetune.model_copy(update={"lr": 1e-30, "steps": 1})})
        data = ratings if outputs == 1 else save_rows(tmp_path / str(outputs))
        finetune("q", still, make_collect(max_checkpoints=1), data, base("bert"), Path("zoo"))
        zoo = load_zoo(Path("zoo"))
        assert zoo.config["num_outputs"] == outputs
        starts[outputs] = torch.cat([zoo.theta[0, e.slice] for e in zoo.layout.entries if ".lora_A." in e.key])
    assert torch.equal(starts[1], starts[2]) and torch.equal(starts[1], starts[3])


# --- steps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_loss_is_the_models_own(kind: str, base, tmp_path: Path) -> None:
    one = finetuning(base("bert"), save_rows(tmp_path / "rows", kind), kind)
    loss, (inputs, labels) = one.start(0).eval(), one.batches(0)(3)
    assert labels.dtype == (torch.float32 if kind == "regression" else torch.int64)
    torch.testing.assert_close(loss(inputs, labels), loss.model(**inputs, labels=labels).loss)


def test_batch_holds_rows_of_one_length_with_their_labels_and_no_more_padding(base, films: Path) -> None:
    one = finetuning(base("bert"), films)
    rows, found = read_rows(films, "train"), []
    for step in range(one.steps):
        inputs, labels = one.batches(0)(step)
        assert inputs["input_ids"].shape[0] == 4
        assert inputs["attention_mask"].sum(1).max() == inputs["input_ids"].shape[1]
        for ids, mask, label in zip(inputs["input_ids"], inputs["attention_mask"], labels, strict=True):
            text = one.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)
            found.append((text, float(label)))
    known = set(zip(rows["text"], rows["label"], strict=True))
    assert set(found) <= known and len(set(found)) > 0.9 * len(known)


def test_processes_share_the_rows_of_a_batch(base, films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    parts = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        parts.append(finetuning(base("bert"), films).batches(0)(5)[1])
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    assert torch.equal(torch.cat(parts), finetuning(base("bert"), films).batches(0)(5)[1])


def test_interrupted_run_draws_the_dropout_that_it_would_have_drawn(
    collect_zoo: Callable[..., Path], base, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(read_json(base("bert") / "config.json")[key] > 0 for key in DROPOUTS)
    whole = collect_zoo("whole", save_every=3)
    original = TextFinetuning.batches

    def batches(self: TextFinetuning, seed: int) -> Callable[[int], Any]:
        batch = original(self, seed)
        return lambda step: batch(step) if step < 10 else (_ for _ in ()).throw(PowerCutError)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextFinetuning, "batches", batches)
        with pytest.raises(PowerCutError):
            collect_zoo("again", save_every=3)
    again = collect_zoo("again", save_every=3)
    assert "films: going on from step 9" in capsys.readouterr().out
    for name in (THETA, HEAD, "loss.csv", "validation.csv"):
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name
    assert not list(UNFINISHED.iterdir())


def test_two_processes_collect_nearly_the_states_of_one(base, films: Path) -> None:
    """Nearly: each pads its rows to the longest of its own, and sums run in another order. Dropout is off here."""
    shutil.copytree(base("bert"), "data/base")
    settings = read_json(Path("data/base/config.json"))
    write_json(Path("data/base/config.json"), settings | dict.fromkeys(DROPOUTS, 0.0))
    said = collect_with_two_processes("text", "films", make_task(), make_collect())
    assert said.count("films: accuracy") == 1
    finetune("films", make_task(), make_collect(), films, Path("data/base"), Path("one"))
    folders = Path("data/zoo/films"), Path("one")
    two, one = (load_zoo(folder).theta for folder in folders)
    torch.testing.assert_close(two, one, rtol=0, atol=1e-4)
    assert (one[0] - one[-1]).abs().max() > 1e-2
    losses = [pd.read_csv(folder / "loss.csv")["loss"].tolist() for folder in folders]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)  # of both processes' rows


# --- warnings -----------------------------------------------------------------------------------


def test_task_that_was_not_learned_is_no_better_than_a_constant(
    collect_zoo: Callable[..., Path], films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "validation"):  # one text for both labels: nothing can be learned
        make_rows(20, 0).assign(text="the film").to_parquet(films / f"{split}.parquet", index=False)
    collect_zoo()
    out = capsys.readouterr().out
    assert "warning: films: not learned, no better than a constant; tune finetune in its task file" in out
    assert "films: accuracy 50.0 after the last step, a constant gives 50.0" in out


def test_verdict_compares_the_last_score_with_a_constant(base, films: Path, tmp_path: Path) -> None:
    one = finetuning(base("bert"), films)
    assert one.verdict([(0, 9.0), (9, 51.0)]) == ("accuracy 51.0 after the last step, a constant gives 50.0", None)
    one = finetuning(base("bert"), save_rows(tmp_path / "rows", "regression"), "regression")
    assert one.verdict([(0, 5.0), (9, 3.0)]) == ("pearson 3.0 after the last step, a constant gives 0.0", None)
    assert one.verdict([(9, -3.0)])[1] == "a constant"
    assert np.isfinite(one.score(one.start(0).model))
