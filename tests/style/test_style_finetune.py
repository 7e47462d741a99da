"""finetune-collect of a style on a random stand-in: its batches, its score, its errors. The rest: zoo/test_collect."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from condpdiff.common.files import read_rows
from condpdiff.style import finetune as module
from condpdiff.style.finetune import StyleFinetuning, finetune, image_order, validation_loss
from condpdiff.style.models import load_examples, load_scheduler
from condpdiff.style.score import Scorer
from condpdiff.style.task import Task
from condpdiff.zoo.checkpoints import load_zoo
from tests.messages import message_of
from tests.stand_ins import make_collect
from tests.style.stand_ins_style import CAPTIONS, SIZE, make_style_rows, save_published_classes
from tests.style.stand_ins_style import make_style_task as make_task


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
        finetune("waves", task or make_task(), make_collect(**collect), waves, base, Path(out))
        return Path(out)

    return run


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


def test_merged_states_have_the_losses_of_the_curve(collect_zoo: Callable[..., Path], waves: Path, base: Path) -> None:
    folder = collect_zoo()
    zoo = load_zoo(folder, 4)
    assert zoo.head == {} and zoo.config["target_modules"] == ["to_k", "to_out.0", "to_q", "to_v"]
    assert {entry.layer for entry in zoo.layout.entries} == {0, 1}
    rows = {"validation": read_rows(waves, "validation")}
    examples = load_examples(base, rows)["validation"]
    scorer = Scorer(base, zoo, make_task(), rows, 256)
    curve = pd.read_csv(folder / "validation.csv").set_index("step")["score"]
    for step, theta in ((0, None), (8, zoo.theta[1]), (10, zoo.theta[-1])):
        scorer.merge(theta)
        found = validation_loss(scorer.model, load_scheduler(base), examples.to(scorer.device))
        assert -curve[step] == pytest.approx(found, rel=1e-5)


def test_every_image_is_seen_once_before_one_is_seen_again() -> None:
    order = image_order(7, 3, 7, seed=0)
    assert order.shape == (7, 3)
    assert all(sorted(part) == list(range(7)) for part in order.reshape(3, 7))
    assert not np.array_equal(order, image_order(7, 3, 7, seed=1))
    assert image_order(2, 5, 1, seed=0).shape == (1, 5)  # a batch larger than the style


def test_processes_share_images_and_noise_of_a_batch(base: Path, waves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = StyleFinetuning("waves", make_task(), make_collect(), waves, base)
    whole = one.batches()(5)
    monkeypatch.setenv("WORLD_SIZE", "2")
    parts = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        parts.append(one.batches()(5))
    for number in (0, 1, 4, 5):  # latents, captions, noise, timesteps
        assert torch.equal(torch.cat([part[number] for part in parts]), whole[number])
    other = StyleFinetuning("waves", make_task(), make_collect(seed=1), waves, base)
    assert not torch.equal(parts[-1][4], other.batches()(5)[4])


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


def test_style_is_learned_if_its_last_loss_is_below_that_without_a_lora(base: Path, waves: Path) -> None:
    one = StyleFinetuning("waves", make_task(), make_collect(), waves, base)
    said = "denoising loss 0.1000 after the last step, 0.2000 without a LoRA"
    assert one.verdict([(0, -0.2), (5, -0.3), (9, -0.1)]) == (said, None)
    assert one.verdict([(0, -0.2), (5, -0.1), (9, -0.2)])[1] == "no LoRA"


def test_what_does_not_fit_is_found_before_the_first_step(
    collect_zoo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, waves: Path
) -> None:
    monkeypatch.setattr("condpdiff.style.finetune.load_examples", lambda *_: pytest.fail("images were encoded"))
    said = message_of(collect_zoo, task=make_task().model_copy(update={"metrics": ["fid"]}))
    assert "inception-2015-12-05.pt: no such file; the metric fid needs params.yaml" in said
    make_style_rows(4, 0, size=64).to_parquet(waves / "train.parquet", index=False)
    task = make_task()
    wide = task.model_copy(update={"data": task.data.model_copy(update={"size": 64})})
    said = message_of(collect_zoo, task=wide)
    assert said.startswith("configs/tasks/waves.yaml: data.size: found 64, allowed: 32, as the base")
