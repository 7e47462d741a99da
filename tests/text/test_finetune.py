"""finetune-collect on a random stand-in: what the zoo holds, and that an interruption leaves no trace."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_json, read_tensors, write_json
from condpdiff.text import finetune as module
from condpdiff.text.finetune import HEAD, THETA, UNFINISHED, Collector, finetune
from condpdiff.text.models import head_state, peft_classifier
from condpdiff.text.rows import read_rows
from condpdiff.text.score import Scorer
from condpdiff.text.task import Task
from condpdiff.zoo.checkpoints import Zoo, load_zoo
from condpdiff.zoo.settings import Collect
from tests.stand_ins import make_collect, make_rows, make_task, save_rows

FILES = [THETA, HEAD, "layout.json", "loss.csv", "validation.csv"]
ROOT = Path(__file__).parent.parent.parent
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
OPENS = 8  # finetune.steps of make_task


class PowerCutError(Exception):
    """Stands for whatever ends a run from outside."""


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def collect_zoo(base, films: Path) -> Callable[..., Path]:
    """Fine-tunes the films; gives the zoo's folder."""

    def run(out: str = "zoo", task: Task | None = None, model_type: str = "bert", **collect: Any) -> Path:
        settings: Collect = make_collect(**collect)
        finetune("films", task or make_task(), settings, films, base(model_type), Path(out))
        return Path(out)

    return run


def watch(monkeypatch: pytest.MonkeyPatch, action: Callable[[int, torch.nn.Module], None]) -> None:
    """Calls `action(step, model)` after the collector's work of every step."""
    original = Collector.on_step_end

    def on_step_end(self: Collector, args: Any, state: Any, control: Any, **kw: Any) -> None:
        original(self, args, state, control, **kw)
        action(state.global_step, kw["model"])

    monkeypatch.setattr(Collector, "on_step_end", on_step_end)


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    def action(now: int, _: torch.nn.Module) -> None:
        if now == step:
            raise PowerCutError

    watch(monkeypatch, action)


# --- what the zoo holds -------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["bert", "roberta", "deberta"])
def test_zoo_holds_n_different_states_and_can_be_loaded(collect_zoo: Callable[..., Path], model_type: str) -> None:
    zoo = load_zoo(collect_zoo(model_type=model_type), 4)
    assert zoo.theta.shape == (4, zoo.layout.K)
    assert ((zoo.theta[1:] - zoo.theta[:-1]).abs().max(dim=1).values > 1e-4).all()
    assert zoo.config["task"] == "films"
    assert (zoo.config["rank"], zoo.config["alpha"], zoo.config["num_outputs"]) == (2, 4.0, 2)
    assert zoo.config["target_modules"] == sorted(zoo.config["target_modules"])


@pytest.mark.parametrize(("every", "expected"), [(1, [9, 10, 11, 12]), (3, [11, 14, 17, 20])])
def test_states_are_the_last_of_the_run(collect_zoo: Callable[..., Path], every: int, expected: list[int]) -> None:
    found = read_tensors(collect_zoo(every=every) / THETA)
    assert found["steps"].tolist() == expected


def test_head_learns_until_the_window_opens_and_is_frozen_there(
    collect_zoo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: dict[int, dict[str, torch.Tensor]] = {}
    learning: dict[int, bool] = {}

    def action(step: int, model: torch.nn.Module) -> None:
        heads[step] = head_state(model)
        learning[step] = any(p.requires_grad for name, p in model.named_parameters() if "modules_to_save" in name)

    watch(monkeypatch, action)
    zoo = load_zoo(collect_zoo(), 4)
    assert learning == {step: step < OPENS for step in range(1, OPENS + 5)}
    for step in range(1, OPENS + 4):
        same = all(torch.equal(heads[step][key], heads[step + 1][key]) for key in zoo.head)
        assert same == (step >= OPENS), step
    assert all(torch.equal(zoo.head[key], heads[OPENS][key]) for key in zoo.head)


def test_merged_last_state_scores_as_the_last_validation(collect_zoo: Callable[..., Path], films: Path, base) -> None:
    folder = collect_zoo(validate_every=4)
    zoo: Zoo = load_zoo(folder, 4)
    task = make_task()
    scorer = Scorer(base("bert"), zoo, task, {"validation": read_rows(films, "validation")}, 256)
    scorer.merge(zoo.theta[-1])
    found = scorer.score("validation", scorer.predict("validation"))["accuracy"]
    curve = pd.read_csv(folder / "validation.csv")
    assert curve["step"].tolist() == [4, 8, 12]
    assert curve["score"].iloc[-1] == pytest.approx(found)


def test_learning_rates_of_lora_and_head(base) -> None:
    model = peft_classifier(base("bert"), 2, 0, 2, 4.0, "auto")
    task = make_task(finetune={"steps": 100, "warmup": 0.1, "lr": 0.01, "head_lr": 0.02})
    optimizer, schedule = module.optimizer_and_schedule(model, task, make_collect(lr=0.001))
    rates = []
    for _ in range(120):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    lora, head = zip(*rates, strict=True)
    assert lora[0] == pytest.approx(0.001)
    assert lora[9] == lora[99] == pytest.approx(0.01)
    assert list(lora[100:]) == pytest.approx([0.001] * 20)  # constant in the window: N different states
    assert max(head) <= 0.02
    assert head[99] == pytest.approx(0.02 / 100)
    assert not any(head[100:])


def test_rate_inside_the_window_goes_down_to_a_tenth_and_starts_again(base) -> None:
    model = peft_classifier(base("bert"), 2, 0, 2, 4.0, "auto")
    optimizer, schedule = module.optimizer_and_schedule(model, make_task(), make_collect(lr=0.1, lr_cycle=5))
    rates = []
    for _ in range(OPENS + 10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[OPENS : OPENS + 5] == pytest.approx([0.1, 0.1 * (0.55 + 0.45 * 0.5**0.5), 0.055, 0.0231802, 0.01])
    assert rates[OPENS + 5 :] == pytest.approx(rates[OPENS : OPENS + 5])


def test_rate_with_a_cycle_of_one_step_is_constant(collect_zoo: Callable[..., Path]) -> None:
    assert (collect_zoo("one", lr_cycle=1) / THETA).read_bytes() == (collect_zoo("two") / THETA).read_bytes()


def test_several_runs_share_the_states_and_the_first_one_s_head(
    collect_zoo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[tuple[int, dict[str, torch.Tensor]]] = []
    watch(monkeypatch, lambda step, model: states.append((step, head_state(model))))
    zoo = load_zoo(collect_zoo(runs=2), 4)
    assert [step for step, _ in states] == [*range(1, OPENS + 3)] * 2
    for _, head in states[OPENS + 2 :]:  # frozen from the second run's first step
        assert all(torch.equal(head[key], zoo.head[key]) for key in zoo.head)
    far, near = (zoo.theta[1] - zoo.theta[2]).norm(), (zoo.theta[0] - zoo.theta[1]).norm()
    assert far > 5 * near  # no trajectory goes from one to the other
    alone = load_zoo(collect_zoo("alone", max_checkpoints=2), 2)
    assert torch.equal(zoo.theta[:2], alone.theta)
    assert read_tensors(Path("zoo") / THETA)["steps"].tolist() == [9, 10, 9, 10]
    assert (Path("zoo") / "loss.csv").read_bytes() == (Path("alone") / "loss.csv").read_bytes()


def test_interrupted_second_run_goes_on_and_gives_the_bytes_of_an_uninterrupted_one(
    collect_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = collect_zoo("whole", runs=2, save_every=3)
    with pytest.MonkeyPatch.context() as patch:
        steps: list[int] = []

        def action(step: int, _: torch.nn.Module) -> None:
            steps.append(step)
            if len(steps) == OPENS + 2 + 8:
                raise PowerCutError

        watch(patch, action)
        with pytest.raises(PowerCutError):
            collect_zoo("again", runs=2, save_every=3)
    again = collect_zoo("again", runs=2, save_every=3)
    assert "films, run 2 of 2: going on from checkpoint-6" in capsys.readouterr().out
    for name in FILES:
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name
    assert not list(UNFINISHED.iterdir())


def test_two_processes_collect_nearly_the_states_of_one(base, films: Path) -> None:
    """Nearly: each pads its rows to the longest of its own, and sums run in another order. Dropout is off here."""
    shutil.copytree(base("bert"), "data/base")
    settings = read_json(Path("data/base/config.json"))
    write_json(Path("data/base/config.json"), settings | dict.fromkeys(DROPOUTS, 0.0))
    write_json(Path("params.yaml"), {"domain": "text", "collect": make_collect().model_dump()})
    Path("configs/tasks").mkdir(parents=True)
    write_json(Path("configs/tasks/films.yaml"), make_task().model_dump(exclude_none=True))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CONDPDIFF_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", "stages.finetune_collect", "films"], env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("films: accuracy") == 1
    two = load_zoo(Path("data/zoo/films"), 4)
    finetune("films", make_task(), make_collect(), films, Path("data/base"), Path("one"))
    one = load_zoo(Path("one"), 4)
    torch.testing.assert_close(two.theta, one.theta, rtol=0, atol=1e-4)
    assert (one.theta[0] - one.theta[-1]).abs().max() > 1e-2
    losses = [pd.read_csv(folder / "loss.csv")["loss"].tolist() for folder in (Path("data/zoo/films"), Path("one"))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_steps_of_the_run_take_the_place_of_the_tasks(collect_zoo: Callable[..., Path]) -> None:
    assert read_tensors(collect_zoo(steps=5) / THETA)["steps"].tolist() == [6, 7, 8, 9]


def test_regression_is_collected_too(base, tmp_path: Path) -> None:
    data = save_rows(tmp_path / "ratings", "regression")
    finetune("ratings", make_task("regression"), make_collect(), data, base("bert"), Path("zoo"))
    zoo = load_zoo(Path("zoo"), 4)
    assert zoo.config["num_outputs"] == 1
    assert torch.isfinite(zoo.theta).all()


# --- the same bytes, interrupted or not ---------------------------------------------------------


def test_two_runs_of_one_seed_give_the_same_bytes_and_another_seed_does_not(collect_zoo: Callable[..., Path]) -> None:
    one, two, other = collect_zoo("one"), collect_zoo("two"), collect_zoo("other", seed=1)
    assert sorted(p.name for p in one.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert (one / THETA).read_bytes() != (other / THETA).read_bytes()


@pytest.mark.parametrize(
    ("save_every", "step"),
    [(3, 2), (3, 5), (3, 11), (4, 9), (2, 12), (10, 11)],
    ids=["before a resume point", "before the window", "in it", "from where it opens", "at the last step", "at a log"],
)
def test_interrupted_run_goes_on_and_gives_the_bytes_of_an_uninterrupted_one(
    collect_zoo: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    save_every: int,
    step: int,
) -> None:
    whole = collect_zoo("whole", save_every=save_every)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(PowerCutError):
            collect_zoo("again", save_every=save_every)
    assert not Path("again").exists()
    again = collect_zoo("again", save_every=save_every)
    last = (step - 1) // save_every * save_every
    assert (f"going on from checkpoint-{last}" in capsys.readouterr().out) == (last > 0)
    for name in FILES:
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name
    assert not list(UNFINISHED.iterdir())


def test_resume_point_that_was_half_written_is_not_used(collect_zoo: Callable[..., Path]) -> None:
    whole = collect_zoo("whole", save_every=3)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 8)
        with pytest.raises(PowerCutError):
            collect_zoo("again", save_every=3)
    (window,) = UNFINISHED.glob(f"*/0/checkpoint-6/{module.WINDOW}")
    window.unlink()
    again = collect_zoo("again", save_every=3)
    assert (again / THETA).read_bytes() == (whole / THETA).read_bytes()


def test_resume_point_of_other_settings_is_not_used(
    collect_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 8)
        with pytest.raises(PowerCutError):
            collect_zoo("again", save_every=3)
    collect_zoo("other", save_every=3, alpha=8.0)
    assert "going on from" not in capsys.readouterr().out


def test_failed_run_leaves_the_old_zoo(collect_zoo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before = (collect_zoo() / THETA).read_bytes()
    kill_at(monkeypatch, 5)
    with pytest.raises(PowerCutError):
        collect_zoo()
    assert (Path("zoo") / THETA).read_bytes() == before


# --- warnings and errors ------------------------------------------------------------------------


def test_task_that_was_not_learned_warns(
    collect_zoo: Callable[..., Path], films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "validation"):  # one text for both labels: nothing can be learned
        make_rows(20, 0).assign(text="the film").to_parquet(films / f"{split}.parquet", index=False)
    collect_zoo()
    out = capsys.readouterr().out
    assert "warning: films: not learned, no better than a constant" in out
    assert "films: accuracy 50.0 after the last step, a constant gives 50.0" in out


def test_task_that_was_learned_does_not_warn(
    collect_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    collect_zoo(task=make_task(finetune={"steps": 60, "batch_size": 8}), validate_every=32)
    assert "warning" not in capsys.readouterr().out


def test_modules_that_the_base_does_not_have_are_one_line(collect_zoo: Callable[..., Path]) -> None:
    with pytest.raises(UserError) as error:
        collect_zoo(target_modules=["no_such_module"])
    message = str(error.value)
    assert message.startswith("params.yaml: collect.target_modules: ")
    assert "\n" not in message


def test_modules_that_are_given_get_the_lora(collect_zoo: Callable[..., Path]) -> None:
    folder = collect_zoo(target_modules=["query"])
    layout = json.loads((folder / "layout.json").read_text())
    assert {entry["module"] for entry in layout} == {"attention.self.query"}


def test_absent_rows_are_one_line(collect_zoo: Callable[..., Path], films: Path) -> None:
    (films / "validation.parquet").unlink()
    with pytest.raises(UserError, match="validation.parquet: no such file"):
        collect_zoo()
