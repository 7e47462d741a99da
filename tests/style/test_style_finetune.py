"""finetune-collect of a style on a random stand-in: what the zoo holds, and that an interruption leaves no trace."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_tensors, write_json
from condpdiff.style import finetune as module
from condpdiff.style.finetune import UNFINISHED, finetune, rate, validation_loss
from condpdiff.style.models import load_examples, load_scheduler
from condpdiff.style.rows import read_rows
from condpdiff.style.score import Scorer
from condpdiff.style.task import Task
from condpdiff.zoo.checkpoints import HEAD, THETA, load_zoo
from condpdiff.zoo.settings import Collect
from tests.stand_ins import make_collect
from tests.style.stand_ins_style import CAPTIONS, SIZE, make_style_rows, save_published_classes, save_style_base
from tests.style.stand_ins_style_zoo import make_style_task as make_task

FILES = [THETA, HEAD, "layout.json", "loss.csv", "validation.csv"]
ROOT = Path(__file__).parent.parent.parent
OPENS = 6  # finetune.steps of make_task


class PowerCutError(Exception):
    """Stands for whatever ends a run from outside."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_style_base(tmp_path_factory.mktemp("pixart"))


@pytest.fixture(autouse=True)
def waves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a prepared style."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/tasks/waves"
    folder.mkdir(parents=True)
    make_style_rows(14, 0).to_parquet(folder / "train.parquet", index=False)
    make_style_rows(6, 1).to_parquet(folder / "validation.parquet", index=False)
    return folder


@pytest.fixture
def collect_zoo(base: Path, waves: Path) -> Callable[..., Path]:
    """Fine-tunes on the waves; gives the zoo's folder."""

    def run(out: str = "zoo", task: Task | None = None, **collect: Any) -> Path:
        settings: Collect = make_collect(**collect)
        finetune("waves", task or make_task(), settings, waves, base, Path(out))
        return Path(out)

    return run


def kill_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Ends the fine-tuning before a further step begins."""
    taken: list[int] = []

    def batch(job: Any, rows: np.ndarray, seed: int, step: int) -> Any:
        if len(taken) == steps:
            raise PowerCutError
        taken.append(step)
        return original(job, rows, seed, step)

    original = module._batch
    monkeypatch.setattr(module, "_batch", batch)


def test_the_classes_of_pixarts_published_parts_are_fine_tuned_scored_and_generate(tmp_path: Path, waves: Path) -> None:
    """Random weights, shrunken: T5, AutoencoderKL, a transformer that puts out a variance too; with guidance."""
    base, task = save_published_classes(tmp_path / "published"), make_task()
    finetune("waves", task, make_collect(), waves, base, Path("zoo"))
    zoo, rows = load_zoo(Path("zoo"), 4), {"select": make_style_rows(3, 1)}
    scorer = Scorer(base, zoo, task, rows, 256)
    losses, made = [], []
    for theta in (None, zoo.theta[-1]):
        scorer.merge(theta)
        losses.append(scorer.losses("select"))
        made.append(scorer.generate(CAPTIONS[:2], [0, 1], 2, 4.5))
    assert np.isfinite(losses).all()
    assert (losses[0] != losses[1]).all()
    assert made[0].shape == (2, SIZE, SIZE, 3)
    assert not np.array_equal(*made)


# --- what the zoo holds -------------------------------------------------------------------------


def test_zoo_holds_n_different_states_and_no_head(collect_zoo: Callable[..., Path]) -> None:
    zoo = load_zoo(collect_zoo(), 4)
    assert zoo.theta.shape == (4, zoo.layout.K)
    assert ((zoo.theta[1:] - zoo.theta[:-1]).abs().max(dim=1).values > 1e-4).all()
    assert zoo.head == {}
    assert zoo.config == {
        "rank": 2, "alpha": 4.0, "task": "waves", "modules_to_save": [],
        "target_modules": ["to_k", "to_out.0", "to_q", "to_v"],
    }  # fmt: skip
    assert {entry.layer for entry in zoo.layout.entries} == {0, 1}


@pytest.mark.parametrize(("every", "expected"), [(1, [7, 8, 9, 10]), (3, [9, 12, 15, 18])])
def test_states_are_the_last_of_the_run(collect_zoo: Callable[..., Path], every: int, expected: list[int]) -> None:
    assert read_tensors(collect_zoo(every=every) / THETA)["steps"].tolist() == expected


def test_steps_of_the_run_take_the_place_of_the_styles(collect_zoo: Callable[..., Path]) -> None:
    assert read_tensors(collect_zoo(steps=3) / THETA)["steps"].tolist() == [4, 5, 6, 7]


def test_curves_begin_without_a_lora_and_end_with_the_last_step(collect_zoo: Callable[..., Path]) -> None:
    folder = collect_zoo(validate_every=4, max_checkpoints=7)
    validation, loss = pd.read_csv(folder / "validation.csv"), pd.read_csv(folder / "loss.csv")
    assert list(validation.columns) == ["task", "step", "score"]
    assert validation["step"].tolist() == [0, 4, 8, 12, 13]
    assert loss["step"].tolist() == [10, 13]
    assert set(loss["task"]) == {"waves"}


def test_merged_states_have_the_losses_of_the_curve(collect_zoo: Callable[..., Path], waves: Path, base: Path) -> None:
    folder = collect_zoo()
    zoo = load_zoo(folder, 4)
    rows = {"validation": read_rows(waves, "validation")}
    examples = load_examples(base, rows)["validation"]
    scorer = Scorer(base, zoo, make_task(), rows, 256)
    curve = pd.read_csv(folder / "validation.csv").set_index("step")["score"]
    for step, theta in ((0, None), (8, zoo.theta[1]), (10, zoo.theta[-1])):
        scorer.merge(theta)
        found = validation_loss(scorer.transformer, load_scheduler(base), examples.to(scorer.device))
        assert -curve[step] == pytest.approx(found, rel=1e-5)


def test_several_runs_share_the_states(collect_zoo: Callable[..., Path]) -> None:
    zoo = load_zoo(collect_zoo(runs=2), 4)
    assert read_tensors(Path("zoo") / THETA)["steps"].tolist() == [7, 8, 7, 8]
    far, near = (zoo.theta[1] - zoo.theta[2]).norm(), (zoo.theta[0] - zoo.theta[1]).norm()
    assert far > 5 * near  # no trajectory goes from one to the other
    alone = load_zoo(collect_zoo("alone", max_checkpoints=2), 2)
    assert torch.equal(zoo.theta[:2], alone.theta)
    assert (Path("zoo") / "loss.csv").read_bytes() == (Path("alone") / "loss.csv").read_bytes()


def test_modules_that_are_given_get_the_lora(collect_zoo: Callable[..., Path]) -> None:
    layout = json.loads((collect_zoo(target_modules=["attn2.to_q"]) / "layout.json").read_text())
    assert {entry["module"] for entry in layout} == {"attn2.to_q"}


# --- steps --------------------------------------------------------------------------------------


def test_rate_rises_over_the_warm_up_and_is_the_windows_from_there() -> None:
    task = make_task(steps=100, warmup=0.1, lr=0.01)
    rates = [rate(step, task, make_collect(lr=0.001)) for step in range(120)]
    assert rates[0] == pytest.approx(0.001)
    assert rates[9] == rates[99] == pytest.approx(0.01)
    assert rates[100:] == pytest.approx([0.001] * 20)  # constant in the window: N different states
    assert rate(110, task, make_collect()) == pytest.approx(0.01)


def test_rate_inside_the_window_goes_down_to_a_tenth_and_starts_again() -> None:
    rates = [rate(step, make_task(), make_collect(lr=0.1, lr_cycle=5)) for step in range(OPENS + 10)]
    assert rates[OPENS : OPENS + 5] == pytest.approx([0.1, 0.1 * (0.55 + 0.45 * 0.5**0.5), 0.055, 0.0231802, 0.01])
    assert rates[OPENS + 5 :] == pytest.approx(rates[OPENS : OPENS + 5])
    assert rate(OPENS, make_task(), make_collect(lr_cycle=1)) == pytest.approx(0.01)


def test_every_image_is_seen_once_before_one_is_seen_again() -> None:
    order = module.batches(7, 3, 7, seed=0)
    assert order.shape == (7, 3)
    assert all(sorted(part) == list(range(7)) for part in order.reshape(3, 7))
    assert not np.array_equal(order, module.batches(7, 3, 7, seed=1))
    assert module.batches(2, 5, 1, seed=0).shape == (1, 5)  # a batch larger than the style


# --- the same bytes, interrupted or not ---------------------------------------------------------


def test_checkpointing_gives_the_same_states(collect_zoo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = load_zoo(collect_zoo("plain"), 4).theta, []
    monkeypatch.setenv(module.CHECKPOINTING, "1")
    work_out_again = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        torch.utils.checkpoint, "checkpoint", lambda *a, **k: calls.append(1) or work_out_again(*a, **k)
    )
    saving = load_zoo(collect_zoo("saving"), 4).theta
    assert calls
    torch.testing.assert_close(saving, plain)


def test_two_runs_of_one_seed_give_the_same_bytes_and_another_seed_does_not(collect_zoo: Callable[..., Path]) -> None:
    one, two, other = collect_zoo("one"), collect_zoo("two"), collect_zoo("other", seed=1)
    assert sorted(p.name for p in one.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert (one / THETA).read_bytes() != (other / THETA).read_bytes()


@pytest.mark.parametrize(
    ("save_every", "steps"),
    [(3, 2), (3, 5), (3, 8), (4, 9), (2, 9), (3, 10)],
    ids=["before a resume point", "before the window", "in it", "across its opening", "near the end", "last but one"],
)
def test_interrupted_run_goes_on_and_gives_the_bytes_of_an_uninterrupted_one(
    collect_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str], save_every: int, steps: int
) -> None:
    settings = {"save_every": save_every, "max_checkpoints": 5}
    whole = collect_zoo("whole", **settings)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, steps)
        with pytest.raises(PowerCutError):
            collect_zoo("again", **settings)
    assert not Path("again").exists()
    again = collect_zoo("again", **settings)
    last = steps // save_every * save_every
    assert (f"going on from step {last}" in capsys.readouterr().out) == (last > 0)
    for name in FILES:
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name
    assert not list(UNFINISHED.iterdir())


def test_run_that_ended_after_its_last_step_is_not_trained_again(collect_zoo: Callable[..., Path]) -> None:
    whole = collect_zoo("whole", save_every=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_tensors", full_disk(module.write_tensors))
        with pytest.raises(PowerCutError):
            collect_zoo("again", save_every=5)
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 0)
        again = collect_zoo("again", save_every=5)
    for name in FILES:
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name


def full_disk(write: Callable[..., None]) -> Callable[..., None]:
    """Writes resume points, and no zoo."""

    def written(path: Path, *rest: Any) -> None:
        if path.name == THETA:
            raise PowerCutError
        write(path, *rest)

    return written


def test_interrupted_second_run_goes_on_without_the_first_one_again(
    collect_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = collect_zoo("whole", runs=2, save_every=4)  # 8 steps a run
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 8 + 5)
        with pytest.raises(PowerCutError):
            collect_zoo("again", runs=2, save_every=4)
    capsys.readouterr()
    again = collect_zoo("again", runs=2, save_every=4)
    out = capsys.readouterr().out
    assert "waves, run 1 of 2: going on from step 8" in out
    assert "waves, run 2 of 2: going on from step 4" in out
    for name in FILES:
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name


def test_resume_point_of_other_settings_is_not_used(
    collect_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 5)
        with pytest.raises(PowerCutError):
            collect_zoo("again", save_every=3)
    collect_zoo("other", save_every=3, alpha=8.0)
    assert "going on from" not in capsys.readouterr().out


def test_failed_run_leaves_the_old_zoo(collect_zoo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before = (collect_zoo() / THETA).read_bytes()
    kill_after(monkeypatch, 5)
    with pytest.raises(PowerCutError):
        collect_zoo()
    assert (Path("zoo") / THETA).read_bytes() == before


def test_two_processes_collect_nearly_the_states_of_one(base: Path, collect_zoo: Callable[..., Path]) -> None:
    """Nearly: sums run in another order."""
    write_json(Path("settings.json"), {"task": make_task().model_dump(), "collect": make_collect().model_dump()})
    Path("both.py").write_text(
        "from pathlib import Path\n"
        "from condpdiff.common.files import read_json\n"
        "from condpdiff.zoo.settings import Collect\n"
        "from condpdiff.style.finetune import finetune\n"
        "from condpdiff.style.task import Task\n"
        "said = read_json(Path('settings.json'))\n"
        "task, collect = Task.model_validate(said['task']), Collect.model_validate(said['collect'])\n"
        f"finetune('waves', task, collect, Path('data/tasks/waves'), Path({str(base)!r}), Path('two'))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "both.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CONDPDIFF_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment | {"ACCELERATE_USE_CPU": "true"}, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("waves: denoising loss") == 1
    two, one = load_zoo(Path("two"), 4), load_zoo(collect_zoo("one"), 4)
    torch.testing.assert_close(two.theta, one.theta, rtol=0, atol=1e-4)
    assert (one.theta[0] - one.theta[-1]).abs().max() > 1e-2
    losses = [pd.read_csv(Path(folder) / "loss.csv")["loss"].tolist() for folder in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# --- warnings and errors ------------------------------------------------------------------------


def test_style_that_was_learned_does_not_warn(
    collect_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    collect_zoo(task=make_task(steps=40))
    out = capsys.readouterr().out
    assert "waves: denoising loss " in out
    assert "warning" not in out


def test_style_that_was_not_learned_warns(
    collect_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "validation_loss", lambda *_: 1.0)
    collect_zoo()
    assert (
        "warning: waves: not learned, no better than no LoRA; tune finetune in its task file" in capsys.readouterr().out
    )


def test_modules_that_the_base_does_not_have_are_one_line(collect_zoo: Callable[..., Path]) -> None:
    with pytest.raises(UserError) as error:
        collect_zoo(target_modules=["no_such_module"])
    message = str(error.value)
    assert message.startswith("params.yaml: collect.target_modules: ")
    assert "\n" not in message


def test_images_of_another_size_than_the_base_models_are_one_line(
    collect_zoo: Callable[..., Path], waves: Path
) -> None:
    for split in ("train", "validation"):
        make_style_rows(4, 0, size=64).to_parquet(waves / f"{split}.parquet", index=False)
    task = make_task()
    wide = task.model_copy(update={"data": task.data.model_copy(update={"size": 64})})
    with pytest.raises(UserError, match=r"^configs/tasks/waves.yaml: data.size: found 64, allowed: 32, as the base"):
        collect_zoo(task=wide)


def test_a_metric_whose_network_is_not_there_is_found_before_the_first_step(
    collect_zoo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("condpdiff.style.finetune.load_examples", lambda *_: pytest.fail("images were encoded"))
    with pytest.raises(UserError, match=r"inception-2015-12-05.pt: no such file; the metric fid needs params.yaml"):
        collect_zoo(task=make_task().model_copy(update={"metrics": ["fid"]}))


def test_absent_rows_are_one_line(collect_zoo: Callable[..., Path], waves: Path) -> None:
    (waves / "validation.parquet").unlink()
    with pytest.raises(UserError, match="validation.parquet: no such file"):
        collect_zoo()
