"""Rows -> batches: bounded, of similar length, and back in the split's order."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from condpdiff.common.errors import UserError
from condpdiff.text.rows import Batches, length_grouped_order, read_rows, tokenize
from tests.stand_ins import make_rows


@pytest.fixture
def tokenizer(base) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(base("bert"))


# --- reading ------------------------------------------------------------------------------------


def test_prepared_rows_are_read(films: Path) -> None:
    assert read_rows(films, "train").equals(make_rows(40, 0))


def test_absent_or_broken_rows_are_one_line(films: Path) -> None:
    (films / "train.parquet").unlink()
    with pytest.raises(UserError, match="train.parquet: no such file; run `dvc repro` from prepare-data"):
        read_rows(films, "train")
    (films / "train.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(UserError, match="train.parquet: not a readable parquet file") as error:
        read_rows(films, "train")
    assert "\n" not in str(error.value)


# --- tokens -------------------------------------------------------------------------------------


def test_tokens_are_cut_and_not_padded(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = make_rows(20, 0)
    ids = tokenize(rows, tokenizer, 6)["input_ids"]
    assert [len(i) for i in ids] == [min(6, len(text.split()) + 2) for text in rows["text"]]


def test_pairs_are_tokenised_together_and_single_texts_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = make_rows(2, 0)
    single = tokenize(rows, tokenizer, 64)["input_ids"]
    pairs = tokenize(rows.assign(text_pair=["good", "the plot"]), tokenizer, 64)["input_ids"]
    good, separator = tokenizer.convert_tokens_to_ids(["good", "[SEP]"])
    assert pairs[0] == [*single[0], good, separator]
    assert len(pairs[1]) == len(single[1]) + 3


# --- batches for scoring ------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 30, 64, 10_000])
def test_batches_hold_every_row_within_the_bound(tokenizer: PreTrainedTokenizerBase, tokens: int) -> None:
    rows = make_rows(33, 0)
    batches = Batches.of(rows, tokenizer, 64, tokens)
    shapes = [tuple(inputs["input_ids"].shape) for inputs in batches.inputs]
    assert sum(count for count, _ in shapes) == 33
    assert all(count * width <= tokens or count == 1 for count, width in shapes)
    assert sorted(batches.order.tolist()) == list(range(33))
    widths = [width for _, width in shapes]
    assert widths == sorted(widths)


def test_batches_are_not_smaller_than_the_bound_asks(tokenizer: PreTrainedTokenizerBase) -> None:
    batches = Batches.of(make_rows(33, 0), tokenizer, 64, 60)
    shapes = [tuple(inputs["input_ids"].shape) for inputs in batches.inputs]
    for (count, _), (_, width) in zip(shapes, shapes[1:], strict=False):
        assert (count + 1) * width > 60 or width > shapes[0][1]
    assert len(Batches.of(make_rows(33, 0), tokenizer, 64, 10_000).inputs) == 1


def test_outputs_come_back_in_the_order_of_the_split(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = make_rows(33, 0)
    batches = Batches.of(rows, tokenizer, 64, 40)
    lengths = [inputs["attention_mask"].sum(1) for inputs in batches.inputs]
    assert batches.in_split_order(lengths).tolist() == [len(text.split()) + 2 for text in rows["text"]]
    ids = [inputs["input_ids"][:, :3].float() for inputs in batches.inputs]
    expected = [row[:3] for row in tokenize(rows, tokenizer, 64)["input_ids"]]
    assert batches.in_split_order(ids).tolist() == expected


def test_padding_is_masked(tokenizer: PreTrainedTokenizerBase) -> None:
    for inputs in Batches.of(make_rows(33, 0), tokenizer, 64, 10_000).inputs:
        assert torch.equal(inputs["attention_mask"] == 0, inputs["input_ids"] == tokenizer.pad_token_id)


# --- the order of training ----------------------------------------------------------------------

LENGTHS = np.random.default_rng(0).integers(3, 120, size=1000)


def test_order_has_the_length_of_the_run_and_is_decided_by_its_seed() -> None:
    one, again, other = (length_grouped_order(LENGTHS, 16, 100, seed) for seed in (0, 0, 1))
    assert one.shape == (1600,)
    assert (one == again).all()
    assert (one != other).any()


def test_a_pass_uses_every_row_once() -> None:
    order = length_grouped_order(LENGTHS[:960], 16, 60, 0)  # 60 batches are one pass
    assert sorted(order.tolist()) == list(range(960))


def test_a_pass_leaves_out_less_than_one_batch_a_window_and_other_rows_each_time() -> None:
    first, second = length_grouped_order(LENGTHS, 16, 124, 0).reshape(2, -1)  # 62 batches a pass, 8 rows over
    assert len(set(first)) == len(first) == 992
    assert set(first) != set(second)


def test_batches_are_of_similar_length_and_come_in_no_order_of_length() -> None:
    batches = LENGTHS[length_grouped_order(LENGTHS, 16, 62, 0)].reshape(62, 16)
    within = batches.std(1).mean()
    assert within < 0.15 * LENGTHS.std()
    padded = (batches.max(1) * 16).sum() / batches.sum()
    assert padded < 1.08
    assert abs(np.corrcoef(np.arange(62), batches.mean(1))[0, 1]) < 0.4


def test_a_longer_run_begins_as_a_shorter_one() -> None:
    assert (length_grouped_order(LENGTHS, 16, 200, 0)[: 16 * 70] == length_grouped_order(LENGTHS, 16, 70, 0)).all()


@pytest.mark.parametrize("rows", [1, 3, 15, 16, 17])
def test_fewer_rows_than_a_batch_are_repeated(rows: int) -> None:
    order = length_grouped_order(LENGTHS[:rows], 16, 5, 0)
    assert order.shape == (80,)
    assert set(order) <= set(range(rows))
    if rows < 16:
        assert set(order) == set(range(rows))
