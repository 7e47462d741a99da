"""Fine-tune a LoRA on one task and collect its last states: the zoo Theta [N, K]."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
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
from transformers.trainer_utils import get_last_checkpoint

from condpdiff.errors import UserError
from condpdiff.files import new_directory, read_config, read_tensors, write_tensors
from condpdiff.layout import Layout, flatten, layout_of
from condpdiff.params.collect import Collect
from condpdiff.params.task import Task
from condpdiff.text.metrics import TaskMetrics, constant_prediction, score
from condpdiff.text.models import load_classifier, lora_config
from condpdiff.text.rows import length_grouped_order, read_rows, tokenize
from condpdiff.zoo import HEAD, THETA

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

    The head learns until the window opens and is frozen there: every state of the window has the same head.
    """

    def __init__(self, layout: Layout, opens: int, every: int, count: int) -> None:
        self.layout, self.opens, self.every = layout, opens, every
        self.theta = torch.zeros(count, layout.K)  # [N_max, K]
        self.steps = torch.zeros(count, dtype=torch.int64)
        self.losses: list[tuple[int, float]] = []
        self.scores: list[tuple[int, float]] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        if state.global_step >= self.opens:  # resumed inside the window
            freeze_head(kw["model"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        step = state.global_step
        if step == self.opens:
            freeze_head(kw["model"])
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


def freeze_head(model: torch.nn.Module) -> None:
    """Stop training everything but the LoRA matrices."""
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            parameter.requires_grad_(False)
            parameter.grad = None


def head_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """The trained head under the keys of a PEFT adapter file."""
    return {
        name.replace("modules_to_save.default.", ""): parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if "modules_to_save" in name
    }


def optimizer_and_schedule(model: PeftModel, task: Task, collect: Collect) -> tuple[Any, Any]:
    """AdamW with one group for the LoRA and one for the head.

    Both rates rise over the warm-up. The LoRA's then stays, so that the window does not hold N copies of one
    checkpoint; the head's falls to 0 where the window opens and the head is frozen.
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

    return optimizer, torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        [
            lambda step: rise(step) if step < ft.steps else window,
            lambda step: rise(step) * max(0.0, 1 - step / ft.steps),
        ],
    )


def finetune(name: str, task: Task, collect: Collect, data: Path, base: Path, out: Path) -> None:
    """Fine-tune on one task and write its zoo folder; an interrupted run goes on from its last resume point.

    Raises:
        UserError: the data can't be read; the model has no such target modules.
    """
    steps = collect.steps or task.finetune.steps
    task = task.model_copy(update={"finetune": task.finetune.model_copy(update={"steps": steps})})
    total = steps + collect.max_checkpoints * collect.every
    rows = {split: read_rows(data, split) for split in ("train", "validation")}

    set_seed(collect.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    classifier = load_classifier(base, task.data.num_outputs, collect.seed)
    model_type = classifier.config.model_type
    lora = lora_config(model_type, collect.rank, collect.alpha, collect.target_modules)
    try:
        model = get_peft_model(classifier, lora)
    except ValueError as error:
        found = f"found {collect.target_modules}: {' '.join(str(error).split())}"
        raise UserError(f"params.yaml: collect.target_modules: {found}") from None
    layout = layout_of(model)

    datasets_ = {split: _dataset(rows[split], tokenizer, task) for split in rows}
    lengths = np.array([len(ids) for ids in datasets_["train"]["input_ids"]])
    order = length_grouped_order(lengths, task.finetune.batch_size, total, collect.seed)
    by_length = np.argsort([len(ids) for ids in datasets_["validation"]["input_ids"]], kind="stable")

    resume_dir = UNFINISHED / f"{name}-{_key(task, collect, data, base)}"
    collector = Collector(layout, steps, collect.every, collect.max_checkpoints)
    metrics = TaskMetrics(task)
    trainer = Trainer(
        model=model,
        args=_arguments(resume_dir, task, collect, total),
        train_dataset=datasets_["train"].select(order),
        eval_dataset=datasets_["validation"].select(by_length),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda p: {"score": _first(metrics, p, task)},
        optimizers=optimizer_and_schedule(model, task, collect),
        callbacks=[collector],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Bar())
    last = _last_complete(resume_dir)
    if last is not None:
        print(f"{name}: going on from {last.name}", flush=True)
        collector.restore(last)
    trainer.train(resume_from_checkpoint=str(last) if last else None)

    _warn_if_not_learned(name, task, rows, collector.scores)
    config = {
        "rank": collect.rank,
        "alpha": collect.alpha,
        "target_modules": sorted(lora.target_modules or []),
        "modules_to_save": sorted(lora.modules_to_save or []),
        "task": name,
        "num_outputs": task.data.num_outputs,
    }
    with new_directory(out) as folder:
        write_tensors(folder / THETA, {"theta": collector.theta, "steps": collector.steps}, config)
        write_tensors(folder / HEAD, head_state(model))
        layout.save(folder)
        _curve(name, collector.losses, "loss").to_csv(folder / "loss.csv", index=False)
        _curve(name, collector.scores, "score").to_csv(folder / "validation.csv", index=False)
    shutil.rmtree(resume_dir, ignore_errors=True)


def _arguments(folder: Path, task: Task, collect: Collect, total: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=total,
        per_device_train_batch_size=task.finetune.batch_size,
        per_device_eval_batch_size=64,
        train_sampling_strategy="sequential",  # the order is in the data set
        logging_steps=LOG_EVERY,
        eval_strategy="steps",
        eval_steps=collect.validate_every,
        save_strategy="steps",
        save_steps=collect.save_every,
        save_total_limit=1,
        seed=collect.seed,
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
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
    """The newest resume point that was written to its end; a half-written one is removed."""
    while folder.is_dir() and (found := get_last_checkpoint(str(folder))):
        last = Path(found)
        if (last / WINDOW).is_file():
            return last
        shutil.rmtree(last)
    return None
