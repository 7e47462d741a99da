"""What the stage benchmark counts and prints; no test asserts a time."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from benchmarks import stages
from condpdiff.autoencoder.models import PatchedAutoencoder
from condpdiff.common.errors import UserError
from condpdiff.text.models import empty_peft_model
from tests.stand_ins import COUNTED_BERT

B, S, R, O = 3, 5, 2, 4  # noqa: E741  rows, tokens, rank, outputs
H, I = COUNTED_BERT["hidden_size"], COUNTED_BERT["intermediate_size"]  # noqa: E741
BERT = COUNTED_BERT | {"num_labels": O}
# One layer: four H x H projections with their LoRA, Q K and A V, the feed-forward pair, pooler and head on one token.
FORWARD = 2 * B * S * (4 * H * H + 4 * 2 * H * R + 2 * S * H + 2 * H * I) + 2 * B * (H * H + H * O)
# Backward through the frozen weights gives their inputs' gradients alone, and q, k, v (on the embeddings) need none.
BACKWARD = 2 * B * S * (H * H + 2 * H * I + 4 * S * H) + 2 * B * (H * H + 2 * H * O)
BACKWARD += 2 * B * S * H * R * (3 * 3 + 4)  # LoRA: A's and B's gradients and B's inputs'; the output's A also has its


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    return empty_peft_model(BERT, R, 1.0, "auto")


def test_a_product_counts_two_operations_a_weight_and_row() -> None:
    model = nn.Linear(5, 7)
    assert stages.counted(model, torch.ones(3, 5)) == 2 * 3 * 5 * 7
    assert stages.counted(torch.inference_mode()(model.forward), torch.ones(3, 5)) == 2 * 3 * 5 * 7


def test_attention_on_the_cpu_is_counted() -> None:
    q = torch.ones(B, 2, S, H // 2)
    assert stages.counted(torch.inference_mode()(F.scaled_dot_product_attention), q, q, q) == 2 * 2 * B * S * S * H


def test_a_classifier_s_passes_are_counted(classifier: nn.Module) -> None:
    assert stages.passes(classifier, [S] * B, B, backward=False) == FORWARD
    assert stages.passes(classifier, [S] * B, B, backward=True) == FORWARD + BACKWARD


def test_batches_are_padded_to_their_longest_row(classifier: nn.Module) -> None:
    assert stages.passes(classifier, [1, S, 2] + [S] * B, B, backward=False) == 2 * FORWARD
    one = stages.passes(classifier, [S], B, backward=False)
    assert stages.passes(classifier, [S] * (B + 1), B, backward=False) == FORWARD + one


def test_steps_are_counted_beside_what_comes_once() -> None:
    a = torch.ones(2, 2)

    def work(steps: int) -> None:
        for _ in range(3 + steps):
            a @ a

    assert stages.repeated(work, 1) == 16 * 4
    assert stages.repeated(work, 100) == 16 * 103


def test_the_autoencoder_is_counted() -> None:
    patch, width, count = 4, 2, 3
    model = PatchedAutoencoder(K=count * patch, C=1, L=4, patch=patch, width=width, depth=1)
    maps, convolutions, bottleneck = count * patch * width, 2 * 5 * width * width * count, count * width * 4
    assert stages.counted(model.encode, torch.ones(B, model.K)) == 2 * B * (maps + convolutions + bottleneck)


def test_every_counted_stage_is_in_dvc_yaml(tmp_path: Path) -> None:
    stages.clone(tmp_path)
    found = stages.stages(tmp_path)
    order = [name.partition("@")[0] for name in found]
    assert found["finetune-collect@movies"] == "python -m stages.finetune_collect movies"
    assert order[0] == "check-params" and order[-1] == "report"
    assert order.index("train-ae") < order.index("encode-latents") < order.index("train-ldm") < order.index("sample")
    assert {stages.flops(name, "") for name in set(order) - {*stages.COUNTED, *stages.COUNTED_OF_TEXT}} == {None}
    assert {*stages.COUNTED, *stages.COUNTED_OF_TEXT} <= set(order)


def test_a_process_is_measured_or_its_output_is_told(tmp_path: Path) -> None:
    _, peak = stages.measure("""python -c 'import time; x = bytearray(10**8); time.sleep(0.5)'""", tmp_path)
    assert peak > 10**8
    with pytest.raises(UserError, match="ended with 1: what went wrong"):
        stages.measure("""python -c 'raise SystemExit("what went wrong")'""", tmp_path)


def test_rows_are_rendered() -> None:
    row = stages.Row("train-ae", 2.0, 1_500_000_000, 3_000_000_000)
    cells = row.cells(rate=6e9)
    assert cells == ("train-ae", "2.0", "1,500", "3.00", "25.0%")
    assert stages.line(cells, markdown=True) == "| train-ae | 2.0 | 1,500 | 3.00 | 25.0% |"
    text = stages.line(cells, markdown=False)
    assert text.split() == list(cells) and len(text) == len(stages.line(stages.HEAD, markdown=False))
    assert stages.Row("report", 2.0, 0, None).cells(6e9)[3:] == ("-", "-")


def test_the_machine_is_named() -> None:
    assert f"{torch.get_num_threads()} torch threads, torch {torch.__version__}" in stages.machine()
    assert not stages.machine().startswith(",")
    assert stages.matmul_rate(side=16) > 0
