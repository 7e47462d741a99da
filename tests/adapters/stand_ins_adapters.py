"""Adapters as others make them: by plain PEFT, transformers' Trainer and diffusers, with random weights."""

import copy
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from diffusers.loaders.peft import PeftAdapterMixin
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

from condpdiff.common.files import write_tensors
from condpdiff.common.task import SETTINGS, save_sections
from condpdiff.style.models import load_transformer
from condpdiff.zoo.checkpoints import HEAD, THETA, Zoo
from tests.stand_ins import make_rows

RANK, ALPHA = 2, 4.0
BASE = Path("data/base")
PROJECTIONS = ["query", "key", "value", "attention.output.dense"]
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def peft_model(**config: Any) -> PeftModel:
    """A classifier on the run's base with a LoRA, as PEFT's own documentation makes one."""
    torch.manual_seed(0)  # of the head
    base = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=2)
    settings = {"task_type": "SEQ_CLS", "r": RANK, "lora_alpha": ALPHA, "target_modules": PROJECTIONS} | config
    return get_peft_model(base, LoraConfig(**settings))


def randomise(model: Any, seed: int, head: bool = False) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_" in name or (head and "modules_to_save" in name):
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def save_adapters(folder: Path, count: int = 4, head: bool = False, names: str = "run-{}", **config: Any) -> list[Any]:
    """Folders of random adapters, written by PEFT; their models."""
    model, found = peft_model(**config), []
    for i in range(1, count + 1):
        randomise(model, i, head).save_pretrained(folder / names.format(i))
        found.append(copy.deepcopy(model))
    return found


def write_run(name: str, zoo: Zoo) -> Zoo:
    """A run's zoo, settings and samples: the samples are the zoo's states, negated."""
    folder = Path("data/zoo", name)
    folder.mkdir(parents=True)
    write_tensors(folder / THETA, {"theta": zoo.theta}, zoo.config | {"task": name})
    write_tensors(folder / HEAD, zoo.head)
    zoo.layout.save(folder)
    Path("data/samples").mkdir()
    write_tensors(Path(f"data/samples/{name}.safetensors"), {"theta": -zoo.theta})
    save_sections(SETTINGS / name, name)
    return zoo


def train_with_trainer(folder: Path) -> None:
    """Six steps of transformers' Trainer, saved every second one."""
    rows, tokenizer = make_rows(16, 0), AutoTokenizer.from_pretrained(BASE)
    rows = rows.assign(labels=rows["label"].astype(int))[["text", "labels"]]
    data = Dataset.from_pandas(rows).map(lambda row: tokenizer(row["text"]), remove_columns="text")
    how: dict[str, Any] = {"max_steps": 6, "save_steps": 2, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    arguments = TrainingArguments(folder, per_device_train_batch_size=4, learning_rate=0.01, **how)
    trainer = Trainer(peft_model(), arguments, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    trainer.save_model()


def style_transformer(seed: int, **config: Any) -> Any:
    """The run's transformer with a LoRA by diffusers' own mixin, which its pipelines with LoRAs use."""
    model: Any = load_transformer(BASE)
    model.__class__ = type("WithLora", (PeftAdapterMixin, type(model)), {})
    model.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=ATTENTION, **config))
    return randomise(model, seed)
