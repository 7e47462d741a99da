"""The arithmetic of the cost calculator, against cases worked out by hand; no test asserts a time of this machine."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks import scale
from benchmarks.counting import counted
from benchmarks.scale import EXACT, HOST, MIXED, Machine, Passes, Setting, Text, Work
from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.settings import Autoencoder
from condpdiff.experiments.params import Params
from condpdiff.experiments.presets import load_preset
from tests.stand_ins import COUNTED_BERT

S, R = 5, 1  # tokens, rank
H, I = COUNTED_BERT["hidden_size"], COUNTED_BERT["intermediate_size"]  # noqa: E741
# A row's forward pass: four H x H projections with their LoRA, Q K and A V, the feed-forward pair; pooler and head.
FORWARD = 2 * S * (4 * H * H + 4 * 2 * H * R + 2 * S * H + 2 * H * I) + 2 * (H * H + 2 * H)
MERGE = 4 * 2 * H * R * H
MACHINE = Machine("m", {MIXED: 100, EXACT: 10, HOST: 1}, issue=0.5, start=1, disk=100, price=2, reached={"known": 0.5})
SMALL = {"latent_channels": 1, "latent_length": 4, "patch": 4, "width": 2, "depth": 0, "steps": 7, "batch_size": 3}


@pytest.fixture(scope="module")
def five() -> Setting:
    preset = load_preset(scale.FIVE)
    return Setting(preset.params, preset.tasks, COUNTED_BERT)


@pytest.fixture(scope="module")
def params(five: Setting) -> Params:
    return five.params


@pytest.fixture(scope="module")
def passes(params: Params) -> Passes:
    return Passes(COUNTED_BERT, params)


def settings(params: Params, **changed: object) -> Autoencoder:
    return params.ae.model_copy(update={**SMALL, **changed})


def test_a_stage_takes_its_slowest_part_and_its_starts() -> None:
    work = Work("s", MIXED, flops=400, issued=10, read=300, processes=2)
    assert work.parts(MACHINE, 0.4) == {"computing": 10, "issuing": 5, "reading": 3}
    assert work.seconds(MACHINE, 0.4) == 2 + 10
    assert work.times(3).seconds(MACHINE, 0.4) == 3 * 12


def test_the_rate_is_that_of_where_a_stage_computes() -> None:
    assert Work("s", EXACT, 400).parts(MACHINE, 0.4)["computing"] == 100
    assert Work("s", HOST, 400).parts(MACHINE, 0.4)["computing"] == 1000


def test_a_measured_share_of_the_rate_stands_before_the_one_asked_for() -> None:
    assert Work("known", MIXED, 400).parts(MACHINE, 0.1)["computing"] == 8


def test_views_are_not_issued() -> None:
    assert scale.issued(lambda: (torch.ones(2, 3).T.reshape(3, 2) + 1) @ torch.ones(2, 2)) >= 4
    a = torch.ones(2, 3)
    assert scale.issued(lambda: a.T + 1) == 1


def test_scoring_counts_merges_rows_and_batches(passes: Passes) -> None:
    assert (passes.merge, passes.row(S, False)) == (MERGE, FORWARD)
    work = scale.scoring("s", passes, [(6, S)], models=10, batch_tokens=10)
    assert work.flops == 10 * (MERGE + 6 * FORWARD)
    assert work.issued == 10 * 3 * passes.issued(False)


def test_score_zoo_counts_the_rated_checkpoints(passes: Passes, params: Params) -> None:
    text = Text(train=S, validation=S, held_out=S, rows=320)
    assert scale.score_zoo(passes, text, params).flops == 150 * (MERGE + 96 * FORWARD)
    fewer = params.model_copy(update={"performance": params.performance.model_copy(update={"every": 50})})
    assert scale.score_zoo(passes, text, fewer).flops == 4 * (MERGE + 96 * FORWARD)  # 0, 50, 100 and the last


def test_merge_eval_adds_the_doses(passes: Passes, params: Params) -> None:
    text = Text(train=S, validation=S, held_out=S, rows=320)
    model = MERGE + (96 + 320) * FORWARD  # 96 held-out rows select, another 96 give the doses' losses
    without = params.model_copy(update={"sample": params.sample.model_copy(update={"doses": 0})})
    assert scale.arm_models(params) == 128
    assert scale.merge_eval(passes, text, without).flops == 128 * model
    assert scale.merge_eval(passes, text, params).flops == (128 + 1 + 5 * 4) * model
    assert scale.merge_eval(passes, text, params).processes == 1
    longer = scale.merge_eval(passes, replace(text, held_out=S + 1), without)
    assert longer.flops == 128 * (MERGE + 96 * passes.row(S + 1, False) + 320 * FORWARD)


def test_fine_tuning_counts_steps_and_validations(passes: Passes, five: Setting) -> None:
    task, params = (
        five.tasks["movies"],
        five.params,
    )  # 250 steps of 16 rows; then 150 states, a validation every 50 steps
    work = scale.finetune(passes, task, Text(S, S, S, 320), params)
    assert work.flops == 400 * 16 * passes.row(S, True) + 8 * 320 * FORWARD
    assert work.issued == 400 * passes.issued(True) + 8 * 5 * passes.issued(False)


def test_a_step_of_the_autoencoder(params: Params) -> None:
    K, rows = 12, 10  # noqa: N806
    _, steps = scale.train_ae(settings(params, start="random"), K, rows)
    maps, bottleneck = K * 2, 2 * 3 * 4  # one map; one side of the bottleneck
    forward = 2 * maps + 2 * bottleneck
    backward = 2 * forward - maps  # w needs no gradient
    assert steps.flops == 7 * 3 * 2 * (forward + backward)
    assert steps.read == 4 * K * rows


def test_a_zoo_larger_than_what_stays_in_memory_is_read_batch_by_batch(params: Params) -> None:
    K, rows = 2**20, 1000  # noqa: N806
    start, steps = scale.train_ae(settings(params, start="random"), K, rows)
    assert steps.read == 4 * K * 3 * 7
    assert start.read == 2 * 4 * K * rows


def test_the_closed_form_start_is_proportional_to_the_weights(params: Params) -> None:
    small = settings(params)
    K, rows = 3 * scale.UNIT * 4, 40  # noqa: N806
    model = autoencoder.build(autoencoder.config_of(small, K))
    assert scale.closed_form(small, K, rows) == counted(model.fit_closed_form, torch.randn(rows, K))
    assert scale.closed_form(settings(params, start="random"), K, rows) == 0


def test_many_tasks_are_seen_as_often(five: Setting, params: Params) -> None:
    many = scale.of_many_tasks(five, 500)
    assert (len(many.params.tasks), many.rows()) == (500, 75_000)
    assert (many.params.ae.steps, many.params.ldm.steps) == (100 * params.ae.steps, 100 * params.ldm.steps)


def test_the_adapters_storage_and_reading(five: Setting, params: Params) -> None:
    more = five.seen_as_often(1500).params
    read = {work.stage: work.read for work in scale.of_generator(more, 400_000, 1500)}
    assert more.ae.steps == 2 * params.ae.steps
    assert read["normalize"] == 3 * 4 * 1500 * 400_000
    assert read["train-ae, steps"] == more.ae.steps * 64 * 4 * 400_000


def test_every_stage_of_a_run_is_there(five: Setting) -> None:
    found = [work.stage.partition(",")[0] for work in scale.works(five)]
    assert found == [
        "finetune-collect", "score-zoo", "normalize", "train-ae", "train-ae", "encode-latents", "encode-conditions",
        "train-ldm", "sample", "merge-eval",
    ]  # fmt: skip


def test_every_task_of_a_preset_has_its_lengths() -> None:
    assert all(set(load_preset(name).tasks) <= set(scale.TEXTS) for name in (scale.FIVE, *scale.TABLE_1_RANKS))


def test_dvc_s_stages_are_those_of_dvc_yaml() -> None:
    found = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    assert scale.dvc_stages(5) == sum(5 if "matrix" in stage else 1 for stage in found)


def test_an_unknown_part_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["scale", "papers"])
    with pytest.raises(SystemExit):
        scale.main()
    assert "papers: allowed: paper, tasks" in capsys.readouterr().err
