"""finetune-collect of a text task on a random stand-in: its rows and batches, its loss, its score."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from condpdiff.common.files import read_json, read_rows, write_json
from condpdiff.text.finetune import TextFinetuning
from condpdiff.text.models import Batches, length_grouped_order, tokenize
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.collect import collect_zoo
from tests.stand_ins import collect_with_two_processes, make_collect, make_rows, make_task, save_rows

pytestmark = pytest.mark.usefixtures("in_a_folder")
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


def finetuning(base: Path, data: Path, kind: str = "classification") -> TextFinetuning:
    return TextFinetuning("films", make_task(kind), make_collect(), data, base)


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
    collect_zoo(finetuning(Path("data/base"), films), Path("one"))
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


ROWS = make_rows(33, 0)
LENGTHS = np.random.default_rng(0).integers(3, 120, size=1000)


@pytest.fixture(scope="module")
def tokenizer(base) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(base("bert"))


def test_tokens_are_cut_and_not_padded_and_pairs_stand_together(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenize(ROWS, tokenizer, 6)["input_ids"]
    assert [len(i) for i in ids] == [min(6, len(text.split()) + 2) for text in ROWS["text"]]
    rows = make_rows(2, 0)
    single = tokenize(rows, tokenizer, 64)["input_ids"]
    pairs = tokenize(rows.assign(text_pair=["good", "the plot"]), tokenizer, 64)["input_ids"]
    assert pairs[0] == [*single[0], *tokenizer.convert_tokens_to_ids(["good", "[SEP]"])]
    assert len(pairs[1]) == len(single[1]) + 3


@pytest.mark.parametrize("tokens", [1, 60, 10_000])
def test_batches_hold_every_row_and_are_as_large_as_allowed(tokenizer: PreTrainedTokenizerBase, tokens: int) -> None:
    batches = Batches(ROWS, tokenizer, 64, tokens)
    shapes = [tuple(inputs["input_ids"].shape) for inputs in batches.inputs]
    assert sum(count for count, _ in shapes) == 33
    assert all(count * width <= tokens or count == 1 for count, width in shapes)
    assert sorted(batches.order.tolist()) == list(range(33))
    assert [width for _, width in shapes] == sorted(width for _, width in shapes)
    for (count, _), (_, width) in zip(shapes, shapes[1:], strict=False):
        assert (count + 1) * width > tokens or width > shapes[0][1]
    assert tokens < 10_000 or len(shapes) == 1


def test_order_is_decided_by_its_seed_begins_as_a_shorter_one_and_a_pass_uses_every_row_at_most_once() -> None:
    one, again, other = (length_grouped_order(LENGTHS, 16, 124, seed) for seed in (0, 0, 1))
    assert (one == again).all() and (one != other).any()
    assert (one[: 16 * 70] == length_grouped_order(LENGTHS, 16, 70, 0)).all()
    first, second = one.reshape(2, -1)  # 62 batches a pass, 8 rows over
    assert len(set(first)) == len(first) == 992 and set(first) != set(second)
    assert sorted(length_grouped_order(LENGTHS[:960], 16, 60, 0).tolist()) == list(range(960))  # 60 batches: one pass


def test_batches_are_of_similar_length_and_come_in_no_order_of_length() -> None:
    batches = LENGTHS[length_grouped_order(LENGTHS, 16, 62, 0)].reshape(62, 16)
    assert batches.std(1).mean() < 0.15 * LENGTHS.std()
    assert (batches.max(1) * 16).sum() / batches.sum() < 1.08  # padding
    assert abs(np.corrcoef(np.arange(62), batches.mean(1))[0, 1]) < 0.4


def test_fewer_rows_than_a_batch_are_repeated() -> None:
    for rows in (1, 15, 17):
        order = length_grouped_order(LENGTHS[:rows], 16, 5, 0)
        assert order.shape == (80,) and set(order) <= set(range(rows))
        assert rows > 16 or set(order) == set(range(rows))
