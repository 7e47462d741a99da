"""Fine-tune a LoRA on one task and collect its last states: the zoo Theta [N, K]."""

import hashlib
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import ProgressCallback

from condpdiff.common.files import new_directory, read_config, read_tensors, write_tensors
from condpdiff.common.hardware import device, rank, share
from condpdiff.text.metrics import TaskMetrics, constant_prediction, score
from condpdiff.text.models import freeze_head, head_modules, head_state, peft_classifier, set_head, target_modules
from condpdiff.text.rows import length_grouped_order, read_rows, tokenize
from condpdiff.text.task import Task
from condpdiff.zoo.checkpoints import HEAD, THETA
from condpdiff.zoo.layout import Layout, flatten, layout_of
from condpdiff.zoo.settings import Collect

UNFINISHED = Path("tmp/finetune")
WINDOW = "window.safetensors"
LOG_EVERY = 10


class Bar(ProgressCallback):
    """The Trainer's bar with the loss beside it, and without a line for every log."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kw: Any
    ) -> None:
        if self.training_bar is not None and "loss" in logs:
            self.training_bar.set_postfix(loss=logs["loss"], refresh=False)

    def on_prediction_step(self, *args: Any, **kw: Any) -> None:
        """Validation takes a second or two: no bar of its own."""


class Collector(TrainerCallback):
    """Keeps the LoRA states of the window in memory, and the curves.

    The head learns until step `freeze_at` and is frozen there, at the latest where the window opens: every state has
    the same head.
    """

    def __init__(self, layout: Layout, opens: int, every: int, count: int, freeze_at: int) -> None:
        self.layout, self.opens, self.every, self.freeze_at = layout, opens, every, freeze_at
        self.theta = torch.zeros(count, layout.K)  # [count, K]
        self.steps = torch.zeros(count, dtype=torch.int64)
        self.losses: list[tuple[int, float]] = []
        self.scores: list[tuple[int, float]] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        if state.global_step >= self.freeze_at:  # resumed after it, or 0
            freeze_head(kw["model"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        step = state.global_step
        if step == self.freeze_at:
            freeze_head(kw["model"])
        # A log is the mean since the last one, which a resume point does not hold: so that none reaches across one.
        control.should_log |= control.should_save
        index, rest = divmod(step - self.opens, self.every)
        if step > self.opens and rest == 0:
            self.theta[index - 1] = lora_state(kw["model"], self.layout)
            self.steps[index - 1] = step

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kw: Any
    ) -> None:
        if "loss" in logs:
            self.losses.append((state.global_step, float(logs["loss"])))
        if "eval_score" in logs:
            self.scores.append((state.global_step, float(logs["eval_score"])))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        if rank() > 0:
            return
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        curves = {"losses": self.losses, "scores": self.scores}
        partial = folder / f"{WINDOW}.partial"
        write_tensors(partial, {"theta": self.theta, "steps": self.steps}, curves)
        partial.rename(folder / WINDOW)

    def restore(self, folder: Path) -> None:
        """Take back what `on_save` wrote."""
        tensors, curves = read_tensors(folder / WINDOW), read_config(folder / WINDOW)
        self.theta, self.steps = tensors["theta"], tensors["steps"]
        self.losses = [(int(step), loss) for step, loss in curves["losses"]]
        self.scores = [(int(step), value) for step, value in curves["scores"]]


def lora_state(model: torch.nn.Module, layout: Layout) -> Tensor:
    """The LoRA matrices of a PEFT model as theta [K]."""
    return flatten({name.replace(".default.", "."): p for name, p in model.named_parameters()}, layout)


def optimizer_and_schedule(model: PeftModel, task: Task, collect: Collect) -> tuple[Any, Any]:
    """AdamW with one group for the LoRA and one for the head.

    Both rates rise over the warm-up. The LoRA's then stays, or goes down and up again inside the window with
    `lr_cycle`, so that the window does not hold N copies of one checkpoint; the head's falls to 0 where the window
    opens and the head is frozen.
    """
    ft = task.finetune
    lora = [p for n, p in model.named_parameters() if ".lora_" in n]
    head = [p for n, p in model.named_parameters() if "modules_to_save" in n]
    groups = [{"params": lora, "lr": ft.lr}, {"params": head, "lr": ft.head_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=ft.weight_decay)
    warm = max(1, round(ft.warmup * ft.steps))
    window = (collect.lr or ft.lr) / ft.lr

    def rise(step: int) -> float:
        return min(1.0, (step + 1) / warm)

    def cycle(step: int) -> float:
        if collect.lr_cycle is None:
            return 1.0
        done = (step - ft.steps) % collect.lr_cycle / max(1, collect.lr_cycle - 1)  # 0 to 1
        return 0.55 + 0.45 * math.cos(math.pi * done)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        [
            lambda step: rise(step) if step < ft.steps else window * cycle(step),
            lambda step: rise(step) * max(0.0, 1 - step / ft.steps),
        ],
    )


@dataclass(frozen=True)
class _Job:
    """What all runs of a task share."""

    name: str
    task: Task
    collect: Collect
    base: Path
    tokenizer: Any
    datasets: dict[str, Dataset]
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


def finetune(name: str, task: Task, collect: Collect, data: Path, base: Path, out: Path) -> None:
    """Fine-tune on one task and write its zoo folder; an interrupted run goes on from its last resume point.

    Several runs differ in their seed: of the LoRA's first values, the order of rows and the dropout.

    Raises:
        UserError: the data can't be read; the model has no such target modules; the processes can't share a batch.
    """
    steps = collect.steps or task.finetune.steps
    task = task.model_copy(update={"finetune": task.finetune.model_copy(update={"steps": steps})})
    rows = {split: read_rows(data, split) for split in ("train", "validation")}
    tokenizer = AutoTokenizer.from_pretrained(base)
    datasets_ = {split: _dataset(rows[split], tokenizer, task) for split in rows}
    unfinished = UNFINISHED / f"{name}-{_key(task, collect, data, base)}"
    job = _Job(name, task, collect, base, tokenizer, datasets_, unfinished)

    model, first = _train(job, 0)
    collectors = [first] + [_train(job, number, head_state(model))[1] for number in range(1, collect.runs)]
    if rank() > 0:
        return
    for number, collector in enumerate(collectors):
        _warn_if_not_learned(_label(job, number), task, rows, collector.scores)
    config = {
        "rank": collect.rank,
        "alpha": collect.alpha,
        "target_modules": target_modules(model.config.model_type, collect.target_modules),
        "modules_to_save": head_modules(model),
        "task": name,
        "num_outputs": task.data.num_outputs,
    }
    tensors = {what: torch.cat([getattr(c, what) for c in collectors]) for what in ("theta", "steps")}
    with new_directory(out) as folder:
        write_tensors(folder / THETA, tensors, config)
        write_tensors(folder / HEAD, head_state(model))
        first.layout.save(folder)
        _curve(name, first.losses, "loss").to_csv(folder / "loss.csv", index=False)
        _curve(name, first.scores, "score").to_csv(folder / "validation.csv", index=False)
    shutil.rmtree(unfinished, ignore_errors=True)


def _train(job: _Job, number: int, head: dict[str, Tensor] | None = None) -> tuple[PeftModel, Collector]:
    """One run from its first step or its last resume point to its end; a head that is given stays as it is."""
    task, collect, seed = job.task, job.collect, job.collect.seed + number
    set_seed(seed)
    num_outputs, modules = task.data.num_outputs, collect.target_modules
    model = peft_classifier(job.base, num_outputs, seed, collect.rank, collect.alpha, modules)
    if head is not None:
        set_head(model, head)
    lengths = {split: np.array([len(ids) for ids in job.datasets[split]["input_ids"]]) for split in job.datasets}
    order = length_grouped_order(lengths["train"], task.finetune.batch_size, job.steps, seed)
    by_length = np.argsort(lengths["validation"], kind="stable")

    opens = task.finetune.steps
    collector = Collector(layout_of(model), opens, collect.every, job.count, opens if head is None else 0)
    metrics = TaskMetrics(task)
    folder = job.unfinished / str(number)
    trainer = Trainer(
        model=model,
        args=_arguments(folder, job, seed),
        train_dataset=job.datasets["train"].select(order),
        eval_dataset=job.datasets["validation"].select(by_length),
        processing_class=job.tokenizer,
        data_collator=DataCollatorWithPadding(job.tokenizer),
        compute_metrics=lambda p: {"score": _first(metrics, p, task)},
        optimizers=optimizer_and_schedule(model, task, collect),
        callbacks=[collector],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Bar())
    if rank() > 0:
        torch.manual_seed(seed + 2**32 * rank())  # else all processes would drop out the same units
    last = _last_complete(folder)
    if last is not None:
        if rank() == 0:
            print(f"{_label(job, number)}: going on from {last.name}", flush=True)
        collector.restore(last)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    return model, collector


def _label(job: _Job, number: int) -> str:
    """What a run is called in a print."""
    return job.name if job.collect.runs == 1 else f"{job.name}, run {number + 1} of {job.collect.runs}"


def _arguments(folder: Path, job: _Job, seed: int) -> TrainingArguments:
    """The order of rows is in the data set.

    Of n processes, Accelerate gives number p the batches p, p + n, p + 2 n, ... of a sequential sampler. With
    batches of batch_size / n rows, step i takes together the rows [i batch_size, (i + 1) batch_size): the ones that
    it takes in one process.
    """
    collect = job.collect
    on_cuda = device() != "cpu"
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=job.steps,
        per_device_train_batch_size=share(job.task.finetune.batch_size),
        per_device_eval_batch_size=64,
        train_sampling_strategy="sequential",
        average_tokens_across_devices=False,  # would take the loss times n: it is a mean over rows, whatever n is
        logging_steps=LOG_EVERY,
        eval_strategy="steps",
        eval_steps=collect.validate_every,
        save_strategy="steps",
        save_steps=collect.save_every,
        save_total_limit=1,
        seed=seed,
        report_to="none",
        use_cpu=not on_cuda,
        bf16=on_cuda,  # the products alone: weights, gradients and Adam's moments stay float32
        dataloader_pin_memory=on_cuda,
        label_names=["labels"],
        log_level="error",
        disable_tqdm=False,  # a quiet log would take the bar away
    )


def _dataset(rows: pd.DataFrame, tokenizer: Any, task: Task) -> Dataset:
    labels = rows["label"].astype("float32" if task.data.kind == "regression" else "int64")
    return Dataset.from_dict({**tokenize(rows, tokenizer, task.finetune.max_length), "labels": labels.tolist()})


def _first(metrics: TaskMetrics, output: Any, task: Task) -> float:
    logits = output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions
    predictions = logits[:, 0] if task.data.kind == "regression" else logits.argmax(-1)
    return metrics.compute(predictions=predictions, references=output.label_ids)[task.metrics[0]]


def _warn_if_not_learned(name: str, task: Task, rows: dict[str, pd.DataFrame], scores: list[tuple[int, float]]) -> None:
    labels = rows["validation"]["label"].to_numpy()
    constant = np.full(len(labels), constant_prediction(rows["train"]["label"].to_numpy(), task.data.kind))
    floor = score(constant, labels, task.metrics)[task.metrics[0]]
    last = scores[-1][1]
    print(f"{name}: {task.metrics[0]} {last:.1f} after the last step, a constant gives {floor:.1f}", flush=True)
    if last <= floor:
        print(f"warning: {name}: not learned, no better than a constant; tune finetune in its task file", flush=True)


def _curve(name: str, points: list[tuple[int, float]], column: str) -> pd.DataFrame:
    frame = pd.DataFrame(points, columns=["step", column]).drop_duplicates("step", keep="last")
    frame.insert(0, "task", name)
    return frame


def _key(task: Task, collect: Collect, data: Path, base: Path) -> str:
    """Tells resume points of other settings or other data apart."""
    settings = [task.model_dump(include={"finetune", "data"}), collect.model_dump()]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update((data / "train.parquet").read_bytes())
    digest.update((base / "model.safetensors").read_bytes())
    return digest.hexdigest()[:12]


def _last_complete(folder: Path) -> Path | None:
    """The newest resume point that was written to its end: the window is its last file. Half-written ones go."""
    points = sorted(folder.glob("checkpoint-*"), key=lambda point: int(point.name.rpartition("-")[2]))
    whole = [point for point in points if (point / WINDOW).is_file()]
    if rank() == 0:  # the Trainer would take one for the newest, and keep it in place of one that it writes
        for point in set(points) - set(whole):
            shutil.rmtree(point)
    return whole[-1] if whole else None
