"""The arithmetic of the cost calculator, against cases worked out by hand; no test asserts a time of this machine."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks import scale
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
def params() -> Params:
    return load_preset("default").params


@pytest.fixture(scope="module")
def passes(params: Params) -> Passes:
    return Passes(COUNTED_BERT, params)


def settings(params: Params, **changed: object) -> Autoencoder:
    return params.ae.model_copy(update={**SMALL, **changed})


def test_a_stage_takes_its_slowest_part_and_its_starts() -> None:
    work = Work("s", MIXED, flops=400, issued=10, read=300, processes=2)
    assert work.parts(MACHINE, 0.4) == {"computing": 10, "issuing": 5, "reading": 3}
    assert work.seconds(MACHINE, 0.4) == 2 + 10
    assert work.seconds(MACHINE, 1) == 2 + 5
    assert work.times(3).seconds(MACHINE, 0.4) == 3 * 12


def test_the_rate_is_that_of_where_a_stage_computes() -> None:
    assert Work("s", EXACT, 400).parts(MACHINE, 0.4)["computing"] == 100
    assert Work("s", HOST, 400).parts(MACHINE, 0.4)["computing"] == 1000


def test_a_measured_share_of_the_rate_stands_before_the_one_asked_for() -> None:
    assert Work("known", MIXED, 400).parts(MACHINE, 0.1)["computing"] == 8


def test_works_of_one_stage_add_up() -> None:
    a, b = Work("s", MIXED, 1, 2, 3, 4), Work("s", MIXED, 10, 20, 30, 40)
    assert scale.summed([a, b]) == Work("s", MIXED, 11, 22, 33, 44)


def test_views_are_not_issued() -> None:
    assert scale.issued(lambda: (torch.ones(2, 3).T.reshape(3, 2) + 1) @ torch.ones(2, 2)) >= 4
    a = torch.ones(2, 3)
    assert scale.issued(lambda: a.T + 1) == 1


def test_scoring_counts_merges_rows_and_batches(passes: Passes) -> None:
    assert (passes.merge, passes.row(S, False)) == (MERGE, FORWARD)
    work = scale.scoring("s", passes, [(6, S)], models=10, batch_tokens=10)
    assert work.flops == 10 * (MERGE + 6 * FORWARD)
    assert work.issued == 10 * 3 * passes.issued(False)


def test_merge_eval_adds_the_doses(passes: Passes, params: Params) -> None:
    text = Text(train=S, validation=S, held_out=S, rows=320)
    model = MERGE + (96 + 320) * FORWARD  # 96 held-out rows select, another 96 give the doses' losses
    assert scale.arm_models(params) == 128
    assert scale.merge_eval(passes, text, params, doses=False).flops == 128 * model
    assert scale.merge_eval(passes, text, params).flops == (128 + 1 + 5 * 4) * model
    assert scale.merge_eval(passes, text, params, doses=False, models=10).flops == 10 * model
    longer = scale.merge_eval(passes, replace(text, held_out=S + 1), params, doses=False)
    assert longer.flops == 128 * (MERGE + 96 * passes.row(S + 1, False) + 320 * FORWARD)


def test_fine_tuning_counts_steps_and_validations(passes: Passes, params: Params) -> None:
    task = load_preset("default").tasks["movies"]  # 250 steps of 16 rows; then 150 states, a validation every 50 steps
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
    assert scale.read_rate(replace(steps, flops=400, issued=0), MACHINE, 0.4) == steps.read / 10


def test_the_closed_form_start_is_proportional_to_the_weights(params: Params) -> None:
    small = settings(params)
    K, rows = 3 * scale.UNIT * 4, 40  # noqa: N806
    model = autoencoder.build(autoencoder.config_of(small, K))
    assert scale.closed_form(small, K, rows) == scale.counted(model.fit_closed_form, torch.randn(rows, K))
    assert scale.closed_form(settings(params, start="random"), K, rows) == 0


def test_many_tasks_are_seen_as_often(params: Params) -> None:
    preset = load_preset("default")
    many = scale.of_many_tasks(Setting(params, preset.tasks, COUNTED_BERT, {}), 500)
    assert (len(many.params.tasks), many.rows()) == (500, 75_000)
    assert (many.params.ae.steps, many.params.ldm.steps) == (100 * params.ae.steps, 100 * params.ldm.steps)


def test_the_adapters_storage_and_reading(params: Params) -> None:
    preset = load_preset("default")
    stages, ae = scale.adapters(Setting(params, preset.tasks, COUNTED_BERT, {}), 1500, 400_000)
    read = {work.stage: work.read for work in stages}
    assert ae.steps == 2 * params.ae.steps
    assert read["normalize"] == 3 * 4 * 1500 * 400_000
    assert read["train-ae, steps"] == ae.steps * 64 * 4 * 400_000


def test_every_task_of_a_preset_has_its_lengths() -> None:
    assert all(set(load_preset(name).tasks) <= set(scale.TEXTS) for name in ("default", *scale.TABLE_1_RANKS))


def test_dvc_s_stages_are_those_of_dvc_yaml() -> None:
    found = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    assert scale.dvc_stages(5) == sum(5 if "matrix" in stage else 1 for stage in found)


def test_numbers_are_shown_with_their_unit() -> None:
    assert [scale.duration(s) for s in (0.5, 90, 600, 7200, 4e6)] == ["0.5 s", "90 s", "10 min", "2 h", "1,111 h"]
    assert scale.span([1.2, 7.0]) == "1 to 7"
    assert scale.span([2.0, 2.1]) == "2"


def test_an_unknown_part_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["scale", "papers"])
    with pytest.raises(SystemExit):
        scale.main()
    assert "papers: allowed: default, paper" in capsys.readouterr().err
