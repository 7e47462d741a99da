"""Prepared rows -> tokens -> batches of rows of one length."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase


def tokenize(rows: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list[list[int]]]:
    """Token ids of every row, cut to `max_length`, not padded."""
    pair = rows["text_pair"].tolist() if rows["text_pair"].str.len().any() else None
    return dict(tokenizer(rows["text"].tolist(), pair, truncation=True, max_length=max_length))


class Batches:
    """Rows tokenised once, sorted by length and cut into batches of at most `tokens` padded tokens."""

    def __init__(self, rows: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, max_length: int, tokens: int) -> None:
        encoded = tokenize(rows, tokenizer, max_length)
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        self.order = order = np.argsort(lengths, kind="stable")  # [V]: position of the batches' rows in the split
        self.inputs: list[dict[str, Tensor]] = []
        start = 0
        while start < len(order):
            end = start + 1  # at least one row, however long
            while end < len(order) and (end + 1 - start) * lengths[order[end]] <= tokens:
                end += 1
            rows_of_batch = {key: [values[i] for i in order[start:end]] for key, values in encoded.items()}
            self.inputs.append(dict(tokenizer.pad(rows_of_batch, return_tensors="pt")))
            start = end

    def in_split_order(self, outputs: list[Tensor]) -> np.ndarray:
        """Concatenate the batches' outputs and put the rows back into the split's order."""
        stacked = torch.cat(outputs).float().cpu().numpy()
        restored = np.empty_like(stacked)
        restored[self.order] = stacked
        return restored


def length_grouped_order(lengths: np.ndarray, batch_size: int, steps: int, seed: int) -> np.ndarray:
    """Row indices [steps * batch_size] of a whole training run, so that each batch holds rows of similar length.

    Each pass shuffles the rows, sorts windows of 32 batches by length and shuffles the batches. The order of
    the whole run is fixed beforehand, so that a resumed run sees the rows that it would have seen.
    """
    rng, window = np.random.default_rng(seed), 32 * batch_size
    batches: list[np.ndarray] = []
    while len(batches) < steps:
        shuffled = rng.permutation(len(lengths))
        if len(shuffled) < batch_size:
            shuffled = np.resize(shuffled, batch_size)
        of_window = (shuffled[i : i + window] for i in range(0, len(shuffled), window))
        by_length = np.concatenate([w[np.argsort(lengths[w], kind="stable")] for w in of_window])
        full = by_length[: len(by_length) // batch_size * batch_size].reshape(-1, batch_size)
        batches += [full[i] for i in rng.permutation(len(full))]
    return np.concatenate(batches[:steps])
