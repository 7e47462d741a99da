"""Fine-tune a LoRA on one style and collect its last states: the zoo Theta [N, K].

The loop is our own: to transformers' Trainer a batch is rows of a data set, and here it is noise and its level too.
What a step sees depends on the seed and the step's number alone, so that a resumed run sees what it would have seen.

CONDPDIFF_CHECKPOINTING: `1` keeps each block's input alone and works the rest out again on the way back. Same weights,
less memory, about a third more time; like the variables of hardware.py it is no parameter of a run.
"""

import hashlib
import json
import math
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import trange

from condpdiff.common.errors import UserError
from condpdiff.common.files import new_directory, read_config, read_json, read_tensors, write_tensors
from condpdiff.common.hardware import compiled, device, rank, share
from condpdiff.common.task import TASKS
from condpdiff.style.metrics import weights_file
from condpdiff.style.models import (
    PARTS,
    Examples,
    denoising_errors,
    image_size,
    load_examples,
    load_scheduler,
    peft_transformer,
    target_modules,
)
from condpdiff.style.rows import read_rows
from condpdiff.style.task import Task
from condpdiff.zoo.checkpoints import HEAD, THETA
from condpdiff.zoo.layout import Layout, flatten, layout_of
from condpdiff.zoo.settings import Collect

UNFINISHED = Path("tmp/finetune")
RESUME = "resume.safetensors"
CHECKPOINTING = "CONDPDIFF_CHECKPOINTING"
LOG_EVERY = 10
VALIDATION_BATCH = 64


@dataclass
class Run:
    """What one fine-tuning has collected so far."""

    layout: Layout
    theta: Tensor
    """[count, K] states of the window; 0 those still to come."""
    steps: Tensor
    """[count] int64: the step after which each was taken."""
    done: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    scores: list[tuple[int, float]] = field(default_factory=list)
    """Minus the loss on the validation images; of step 0, the one without a LoRA."""


@dataclass(frozen=True)
class _Job:
    """What all runs of a style share."""

    name: str
    task: Task
    collect: Collect
    base: Path
    scheduler: Any
    train: Examples
    validation: Examples
    unfinished: Path
    """Folder of the resume points, one below it a run."""

    @property
    def count(self) -> int:
        """States of one run."""
        return self.collect.max_checkpoints // self.collect.runs

    @property
    def steps(self) -> int:
        """Steps of one run."""
        return self.task.finetune.steps + self.count * self.collect.every


class DenoisingLoss(nn.Module):
    """Mean denoising loss of a batch, as the module whose calls DDP watches."""

    def __init__(self, transformer: nn.Module, scheduler: Any) -> None:
        super().__init__()
        self.transformer, self.scheduler = transformer, scheduler

    def forward(
        self, latents: Tensor, caption: Tensor, embeddings: Tensor, mask: Tensor, noise: Tensor, timesteps: Tensor
    ) -> Tensor:
        examples = Examples(latents, caption, embeddings, mask)
        return denoising_errors(self.transformer, self.scheduler, examples, noise, timesteps).mean()


def finetune(name: str, task: Task, collect: Collect, data: Path, base: Path, out: Path) -> None:
    """Fine-tune on one style and write its zoo folder; an interrupted run goes on from its last resume point.

    Several runs differ in their seed: of the LoRA's first values, the order of images, their noise and its level.

    Raises:
        UserError: the data can't be read, or is of another size than the base model's; the model has no such target
            modules; the processes can't share a batch.
    """
    steps = collect.steps or task.finetune.steps
    task = task.model_copy(update={"finetune": task.finetune.model_copy(update={"steps": steps})})
    # Before the long work: whether it can be shared, whether what it is for can be measured.
    share(task.finetune.batch_size)
    _check_base(name, task, base)
    examples = load_examples(base, {split: read_rows(data, split) for split in ("train", "validation")})
    train, validation = (examples[split].to(device()) for split in ("train", "validation"))
    unfinished = UNFINISHED / f"{name}-{_key(task, collect, data, base)}"
    job = _Job(name, task, collect, base, load_scheduler(base), train, validation, unfinished)

    runs = [_train(job, number) for number in range(collect.runs)]
    if rank() > 0:
        return
    for number, run in enumerate(runs):
        _warn_if_not_learned(_label(job, number), run.scores)
    config = {
        "rank": collect.rank,
        "alpha": collect.alpha,
        "target_modules": target_modules(collect.target_modules),
        "modules_to_save": [],
        "task": name,
    }
    tensors = {what: torch.cat([getattr(run, what) for run in runs]) for what in ("theta", "steps")}
    with new_directory(out) as folder:
        write_tensors(folder / THETA, tensors, config)
        write_tensors(folder / HEAD, {})  # nothing but the LoRA is trained
        runs[0].layout.save(folder)
        _curve(name, runs[0].losses, "loss").to_csv(folder / "loss.csv", index=False)
        _curve(name, runs[0].scores, "score").to_csv(folder / "validation.csv", index=False)
    shutil.rmtree(unfinished, ignore_errors=True)


def _train(job: _Job, number: int) -> Run:
    """One run from its first step or its last resume point to its end."""
    task, collect, seed = job.task, job.collect, job.collect.seed + number
    model = peft_transformer(job.base, seed, collect.rank, collect.alpha, collect.target_modules)
    model.to(device()).eval()  # the weights beside the LoRA are frozen: nothing is dropped out
    if os.environ.get(CHECKPOINTING) == "1":
        model.get_base_model().enable_gradient_checkpointing()  # type: ignore[operator]  # to mypy, a Tensor
    lora = [p for name, p in model.named_parameters() if ".lora_" in name]
    optimizer = torch.optim.AdamW(lora, weight_decay=task.finetune.weight_decay)
    layout = layout_of(model)
    run = Run(layout, torch.zeros(job.count, layout.K), torch.zeros(job.count, dtype=torch.int64))
    point = job.unfinished / str(number) / RESUME
    if point.is_file():
        _restore(point, run, lora, optimizer)
        if rank() == 0:
            print(f"{_label(job, number)}: going on from step {run.done}", flush=True)

    gpu = device() != "cpu"
    accelerator = Accelerator(cpu=not gpu, mixed_precision="bf16" if gpu else "no", step_scheduler_with_optimizer=False)
    network, optimizer = accelerator.prepare(compiled(DenoisingLoss(model, job.scheduler)), optimizer)
    order = batches(len(job.train), task.finetune.batch_size, job.steps, seed)
    since: list[Tensor] = []
    bar = trange(
        run.done, job.steps, initial=run.done, total=job.steps, desc=_label(job, number), unit="step", mininterval=1,
        disable=rank() > 0,
    )  # fmt: skip
    if run.done == 0:
        run.scores.append((0, -validation_loss(model, job.scheduler, job.validation)))
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = rate(step, task, collect)
        optimizer.zero_grad(set_to_none=True)
        with accelerator.autocast():
            loss = network(*_batch(job, order[step], seed, step))
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(lora, 1.0)
        optimizer.step()
        since.append(loss.detach())

        run.done = done = step + 1
        index, rest = divmod(done - task.finetune.steps, collect.every)
        if done > task.finetune.steps and rest == 0:
            run.theta[index - 1] = lora_state(model, layout)
            run.steps[index - 1] = done
        saves = done % collect.save_every == 0
        # A point of the curve is the mean since the last one, which a resume point does not hold: none goes across it.
        if done % LOG_EVERY == 0 or saves or done == job.steps:
            mean = float(accelerator.reduce(torch.stack(since).mean(), reduction="mean"))
            bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
            run.losses.append((done, mean))
            since = []
        if rank() == 0 and (done % collect.validate_every == 0 or done == job.steps):
            run.scores.append((done, -validation_loss(model, job.scheduler, job.validation)))
        if rank() == 0 and saves:
            _save(point, run, lora, optimizer)
    accelerator.free_memory()
    return run


def lora_state(model: nn.Module, layout: Layout) -> Tensor:
    """The LoRA matrices of a PEFT model as theta [K]."""
    return flatten({name.replace(".default.", "."): p for name, p in model.named_parameters()}, layout)


def rate(step: int, task: Task, collect: Collect) -> float:
    """The learning rate of a step, counted from 0.

    It rises over the warm-up and stays; in the window it is `collect.lr`, constant or along cosines with `lr_cycle`,
    so that the window does not hold N copies of one checkpoint.
    """
    ft = task.finetune
    if step < ft.steps:
        return ft.lr * min(1.0, (step + 1) / max(1, round(ft.warmup * ft.steps)))
    window = collect.lr or ft.lr
    if collect.lr_cycle is None:
        return window
    done = (step - ft.steps) % collect.lr_cycle / max(1, collect.lr_cycle - 1)  # 0 to 1
    return window * (0.55 + 0.45 * math.cos(math.pi * done))


def batches(count: int, batch_size: int, steps: int, seed: int) -> np.ndarray:
    """Image indices [steps, batch_size] of a whole run: one random order of all images after another."""
    rng = np.random.default_rng([seed, 0])
    passes = -(-steps * batch_size // count)
    order = np.concatenate([rng.permutation(count) for _ in range(passes)])
    return order[: steps * batch_size].reshape(steps, batch_size)


def _batch(job: _Job, rows: np.ndarray, seed: int, step: int) -> tuple[Tensor, ...]:
    """What `DenoisingLoss` takes, of this process's share of the rows [batch_size] of one step."""
    rng = np.random.default_rng([seed, 1 + step])
    shape = (len(rows), *job.train.latents.shape[1:])
    noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    timesteps = torch.from_numpy(rng.integers(job.scheduler.config.num_train_timesteps, size=len(rows)))
    size = share(len(rows))
    mine = slice(rank() * size, (rank() + 1) * size)
    chosen = job.train[torch.from_numpy(rows[mine]).to(device())]
    drawn = noise[mine].to(device()), timesteps[mine].to(device())
    return chosen.latents, chosen.caption, chosen.embeddings, chosen.mask, *drawn


@torch.no_grad()
def validation_loss(model: nn.Module, scheduler: Any, examples: Examples) -> float:
    """Mean denoising loss at evenly spaced noise levels, with the same noise for every state of every run."""
    noise = torch.randn(examples.latents.shape, generator=torch.Generator().manual_seed(0)).to(device())
    last = scheduler.config.num_train_timesteps - 1
    timesteps = torch.linspace(0, last, len(examples)).round().long().to(device())
    parts = torch.arange(len(examples), device=device()).split(VALIDATION_BATCH)
    errors = [denoising_errors(model, scheduler, examples[rows], noise[rows], timesteps[rows]) for rows in parts]
    return float(torch.cat(errors).double().mean())


def _save(path: Path, run: Run, lora: list[nn.Parameter], optimizer: Any) -> None:
    """Write all that the run goes on from, in place of its last resume point."""
    tensors = {"theta": run.theta, "steps": run.steps}
    tensors |= {f"lora.{i}": p.detach() for i, p in enumerate(lora)}
    state = optimizer.state_dict()["state"]
    tensors |= {f"adam.{i}.{key}": value for i, values in state.items() for key, value in values.items()}
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(partial, tensors, {"done": run.done, "losses": run.losses, "scores": run.scores})
    partial.rename(path)


def _restore(path: Path, run: Run, lora: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Take back what `_save` wrote."""
    tensors, curves = read_tensors(path), read_config(path)
    run.theta, run.steps, run.done = tensors["theta"], tensors["steps"], curves["done"]
    run.losses = [(int(step), loss) for step, loss in curves["losses"]]
    run.scores = [(int(step), score) for step, score in curves["scores"]]
    state: dict[int, dict[str, Tensor]] = {i: {} for i in range(len(lora))}
    for name, tensor in tensors.items():
        if name.startswith("adam."):
            _, number, key = name.split(".")
            state[int(number)][key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    with torch.no_grad():
        for i, parameter in enumerate(lora):
            parameter.copy_(tensors[f"lora.{i}"])


def _check_base(name: str, task: Task, base: Path) -> None:
    """Raise a UserError if the base model makes images of another size, or has no network for a metric."""
    allowed = image_size(read_json(base / "transformer/config.json"), read_json(base / "vae/config.json"))
    if task.data.size != allowed:
        key = f"{TASKS / name}.yaml: data.size"
        raise UserError(f"{key}: found {task.data.size}, allowed: {allowed}, as the base model makes images")
    for metric in task.metrics:
        weights_file(base, metric)


def _label(job: _Job, number: int) -> str:
    """What a run is called in a print."""
    return job.name if job.collect.runs == 1 else f"{job.name}, run {number + 1} of {job.collect.runs}"


def _warn_if_not_learned(name: str, scores: list[tuple[int, float]]) -> None:
    bare, last = -scores[0][1], -scores[-1][1]
    print(f"{name}: denoising loss {last:.4f} after the last step, {bare:.4f} without a LoRA", flush=True)
    if not last < bare:
        print(f"warning: {name}: not learned, no better than no LoRA; tune finetune in its task file", flush=True)


def _curve(name: str, points: list[tuple[int, float]], column: str) -> pd.DataFrame:
    frame = pd.DataFrame(points, columns=["step", column])
    frame.insert(0, "task", name)
    return frame


def _key(task: Task, collect: Collect, data: Path, base: Path) -> str:
    """Tells resume points of other settings, other data or another base apart."""
    settings = [task.model_dump(include={"finetune", "data"}), collect.model_dump()]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    weights = (path for part in PARTS for path in sorted((base / part).glob("*")) if path.is_file())
    for path in [data / "train.parquet", data / "validation.parquet", *weights]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]
