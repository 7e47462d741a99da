"""What the benchmarks count, and the cost calculator's arithmetic, against operations worked out by hand.

No test asserts a time.
"""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from benchmarks import scale
from benchmarks.counting import counted, repeated
from benchmarks.counting import passes as counted_passes
from benchmarks.scale import EXACT, HOST, MIXED, Machine, Passes, Setting, Text, Work
from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.settings import Autoencoder
from condpdiff.experiments.presets import load_preset
from condpdiff.text.models import empty_peft_model
from tests.stand_ins import COUNTED_BERT

B, S, R, O = 3, 5, 2, 4  # noqa: E741  rows, tokens, rank, outputs
H, I = COUNTED_BERT["hidden_size"], COUNTED_BERT["intermediate_size"]  # noqa: E741
MACHINE = Machine("m", {MIXED: 100, EXACT: 10, HOST: 1}, issue=0.5, start=1, disk=100, price=2, reached={"known": 0.5})
SMALL = {"latent_channels": 1, "latent_length": 4, "patch": 4, "width": 2, "depth": 0, "steps": 7, "batch_size": 3}


def forward(rows: int, rank: int, outputs: int) -> int:
    """One layer: four H x H projections with their LoRA, Q K and A V, the feed-forward pair; pooler and head of one
    token."""
    return 2 * rows * (S * (4 * H * H + 4 * 2 * H * rank + 2 * S * H + 2 * H * I) + H * H + H * outputs)


# Backward through the frozen weights gives their inputs' gradients alone, and q, k, v (on the embeddings) need none.
BACKWARD = 2 * B * S * (H * H + 2 * H * I + 4 * S * H) + 2 * B * (H * H + 2 * H * O)
BACKWARD += 2 * B * S * H * R * (3 * 3 + 4)  # LoRA: A's and B's gradients and B's inputs'; the output's A also has its
FORWARD = forward(1, 1, 2)  # of a row, in the calculator's setting
MERGE = 4 * 2 * H * H
PRESET = load_preset(scale.FIVE)
FIVE, PARAMS = Setting(PRESET.params, PRESET.tasks, COUNTED_BERT), PRESET.params


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    return empty_peft_model(COUNTED_BERT | {"num_labels": O}, R, 1.0, "auto")


def test_a_classifier_s_passes_are_counted(classifier: nn.Module) -> None:
    once = forward(B, R, O)
    assert counted_passes(classifier, [S] * B, B, backward=False) == once
    assert counted_passes(classifier, [S] * B, B, backward=True) == once + BACKWARD
    assert counted_passes(classifier, [1, S, 2] + [S] * B, B, backward=False) == 2 * once  # padded to the longest


def test_the_autoencoder_and_steps_beside_what_comes_once_are_counted() -> None:
    patch, width, count = 4, 2, 3
    model = autoencoder.PatchedAutoencoder(K=count * patch, C=1, L=4, patch=patch, width=width, depth=1)
    maps, convolutions, bottleneck = count * patch * width, 2 * 5 * width * width * count, count * width * 4
    assert counted(model.encode, torch.ones(B, model.K)) == 2 * B * (maps + convolutions + bottleneck)
    a = torch.ones(2, 2)
    assert repeated(lambda steps: [a @ a for _ in range(3 + steps)], 100) == 16 * 103


def settings(**changed: object) -> Autoencoder:
    return PARAMS.ae.model_copy(update={**SMALL, **changed})


def test_a_stage_takes_its_slowest_part_at_the_rate_of_where_it_computes() -> None:
    work = Work("s", MIXED, flops=400, issued=10, read=300, processes=2)
    assert work.parts(MACHINE, 0.4) == {"computing": 10, "issuing": 5, "reading": 3}
    assert work.seconds(MACHINE, 0.4) == 2 + 10
    assert work.times(3).seconds(MACHINE, 0.4) == 3 * 12
    for name, kind, seconds in (("s", EXACT, 100), ("s", HOST, 1000), ("known", MIXED, 8)):
        assert Work(name, kind, 400).parts(MACHINE, 0.4)["computing"] == seconds


def test_scoring_and_fine_tuning_count_merges_rows_batches_doses_and_steps() -> None:
    passes, text = Passes(COUNTED_BERT, PARAMS), Text(train=S, validation=S, held_out=S, rows=320)
    assert (passes.merge, passes.row(S, False)) == (MERGE, FORWARD)
    work = scale.scoring("s", passes, [(6, S)], models=10, batch_tokens=10)
    assert (work.flops, work.issued) == (10 * (MERGE + 6 * FORWARD), 10 * 3 * passes.issued(False))
    assert scale.score_zoo(passes, text, PARAMS).flops == 150 * (MERGE + 96 * FORWARD)
    model = MERGE + (96 + 320) * FORWARD  # 96 held-out rows select, another 96 give the doses' losses
    without = PARAMS.model_copy(update={"sample": PARAMS.sample.model_copy(update={"doses": 0})})
    assert scale.merge_eval(passes, text, without).flops == 128 * model
    assert scale.merge_eval(passes, text, PARAMS).flops == (128 + 1 + 5 * 4) * model
    work = scale.finetune(passes, FIVE.tasks["movies"], text, PARAMS)  # 250 steps of 16 rows; then 150 states
    validations = 400 // PARAMS.collect.validate_every
    assert work.flops == 400 * 16 * passes.row(S, True) + validations * 320 * FORWARD
    assert work.issued == 400 * passes.issued(True) + validations * 5 * passes.issued(False)


def test_the_autoencoder_s_steps_and_what_they_read() -> None:
    K, rows = 12, 10  # noqa: N806
    _, steps = scale.train_ae(settings(start="random"), K, rows)
    maps, bottleneck = K * 2, 2 * 3 * 4  # one map; one side of the bottleneck
    forward = 2 * maps + 2 * bottleneck
    backward = 2 * forward - maps  # w needs no gradient
    assert steps.flops == 7 * 3 * 2 * (forward + backward)
    assert steps.read == 4 * K * rows
    K, rows = 2**20, 1000  # noqa: N806  more than stays in memory
    start, steps = scale.train_ae(settings(start="random"), K, rows)
    assert (start.read, steps.read) == (2 * 4 * K * rows, 4 * K * 3 * 7)


def test_every_stage_of_a_run_is_there_many_tasks_are_seen_as_often_and_an_unknown_part_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [work.stage.partition(",")[0] for work in scale.works(FIVE)]
    assert found == [
        "finetune-collect", "score-zoo", "normalize", "train-ae", "train-ae", "encode-latents", "encode-conditions",
        "train-ldm", "sample", "merge-eval",
    ]  # fmt: skip
    assert all(set(load_preset(name).tasks) <= set(scale.TEXTS) for name in (scale.FIVE, *scale.TABLE_1_RANKS))
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    assert scale.dvc_stages(5) == sum(5 if "matrix" in stage else 1 for stage in stages)
    many = scale.of_many_tasks(FIVE, 500)
    assert (len(many.params.tasks), many.rows()) == (500, 75_000)
    assert (many.params.ae.steps, many.params.ldm.steps) == (100 * PARAMS.ae.steps, 100 * PARAMS.ldm.steps)
    monkeypatch.setattr("sys.argv", ["scale", "papers"])
    with pytest.raises(SystemExit):
        scale.main()
    assert "papers: allowed: paper, tasks" in capsys.readouterr().err


def test_the_closed_form_start_is_proportional_to_the_weights() -> None:
    small = settings()
    K, rows = 3 * scale.UNIT * 4, 40  # noqa: N806
    model = autoencoder.build(autoencoder.config_of(small, K))
    assert scale.closed_form(small, K, rows) == counted(model.fit_closed_form, torch.randn(rows, K))
    assert scale.closed_form(settings(start="random"), K, rows) == 0
