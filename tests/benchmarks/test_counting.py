"""What the benchmarks count, against operations worked out by hand; no test asserts a time."""

import pytest
import torch
from torch import nn

from benchmarks import counting
from condpdiff.autoencoder.models import PatchedAutoencoder
from condpdiff.text.models import empty_peft_model
from tests.stand_ins import COUNTED_BERT

B, S, R, O = 3, 5, 2, 4  # noqa: E741  rows, tokens, rank, outputs
H, I = COUNTED_BERT["hidden_size"], COUNTED_BERT["intermediate_size"]  # noqa: E741
# One layer: four H x H projections with their LoRA, Q K and A V, the feed-forward pair, pooler and head on one token.
FORWARD = 2 * B * S * (4 * H * H + 4 * 2 * H * R + 2 * S * H + 2 * H * I) + 2 * B * (H * H + H * O)
# Backward through the frozen weights gives their inputs' gradients alone, and q, k, v (on the embeddings) need none.
BACKWARD = 2 * B * S * (H * H + 2 * H * I + 4 * S * H) + 2 * B * (H * H + 2 * H * O)
BACKWARD += 2 * B * S * H * R * (3 * 3 + 4)  # LoRA: A's and B's gradients and B's inputs'; the output's A also has its


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    return empty_peft_model(COUNTED_BERT | {"num_labels": O}, R, 1.0, "auto")


def test_a_classifier_s_passes_are_counted(classifier: nn.Module) -> None:
    assert counting.passes(classifier, [S] * B, B, backward=False) == FORWARD
    assert counting.passes(classifier, [S] * B, B, backward=True) == FORWARD + BACKWARD
    assert counting.passes(classifier, [1, S, 2] + [S] * B, B, backward=False) == 2 * FORWARD  # padded to the longest


def test_steps_are_counted_beside_what_comes_once() -> None:
    a = torch.ones(2, 2)

    def work(steps: int) -> None:
        for _ in range(3 + steps):
            a @ a

    assert counting.repeated(work, 1) == 16 * 4
    assert counting.repeated(work, 100) == 16 * 103


def test_the_autoencoder_is_counted() -> None:
    patch, width, count = 4, 2, 3
    model = PatchedAutoencoder(K=count * patch, C=1, L=4, patch=patch, width=width, depth=1)
    maps, convolutions, bottleneck = count * patch * width, 2 * 5 * width * width * count, count * width * 4
    assert counting.counted(model.encode, torch.ones(B, model.K)) == 2 * B * (maps + convolutions + bottleneck)
