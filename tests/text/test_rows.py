"""Rows -> batches: bounded, of similar length, and back in the split's order."""

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from condpdiff.text.rows import Batches, length_grouped_order, tokenize
from tests.stand_ins import make_rows

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
    batches = Batches.of(ROWS, tokenizer, 64, tokens)
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
