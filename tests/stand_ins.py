"""Random stand-ins: tiny models with random weights, made-up rows and zoos. Nothing here was trained on anything."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from condpdiff.common import task as tasks
from condpdiff.common.files import write_json
from condpdiff.common.settings import parse
from condpdiff.common.task import SETTINGS
from condpdiff.text.models import peft_model
from condpdiff.text.task import Task
from condpdiff.zoo.checkpoints import Entry, Layout, Zoo, layout_of
from condpdiff.zoo.collect import head_state, lora_config
from condpdiff.zoo.settings import Collect

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
GOOD = ["good", "great", "fine", "lovely"]
BAD = ["bad", "awful", "poor", "ugly"]
FILLERS = ["the", "film", "was", "a", "really", "very", "plot", "and"]
VOCABULARY = SPECIAL + GOOD + BAD + FILLERS

HIDDEN, LAYERS = 16, 2
_SMALL = {"vocab_size": len(VOCABULARY), "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
_SMALL |= {"intermediate_size": 32, "max_position_embeddings": 66, "pad_token_id": 0}
_SHARED = _SMALL | {"type_vocab_size": 2}
_OF_DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
COUNTED_BERT = {  # one small layer, whose operations tests count by hand
    "model_type": "bert",
    "hidden_size": 8,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 10,
}
_DECODER = {**_SMALL, "num_key_value_heads": 1, "bos_token_id": 2, "eos_token_id": 3}
MODELS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "bert": (_SMALL, ["classifier"]),
    "roberta": (_SMALL, ["classifier"]),
    "deberta": (_SMALL | _OF_DEBERTA, ["pooler", "classifier"]),
    "deberta-v2": (_SMALL | _OF_DEBERTA, ["pooler", "classifier"]),
    "electra": (_SMALL | {"embedding_size": 16}, ["classifier"]),
    "distilbert": (
        {"vocab_size": len(VOCABULARY), "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "pad_token_id": 0},
        ["pre_classifier", "classifier"],
    ),
    "albert": (_SMALL | {"embedding_size": 8}, ["classifier"]),
    "mpnet": (_SMALL, ["classifier"]),
    "xlnet": (
        {"vocab_size": len(VOCABULARY), "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32, "pad_token_id": 0},
        ["sequence_summary", "logits_proj"],
    ),
    "modernbert": (_SMALL | {"cls_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "bos_token_id": 2,
                             "reference_compile": False}, ["head", "classifier"]),
    "gpt2": (
        {"vocab_size": len(VOCABULARY), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 66, "eos_token_id": 3},
        ["score"],
    ),
    "llama": (_DECODER, ["score"]),
    "qwen2": (_DECODER, ["score"]),
}  # fmt: skip
CAUSAL = ("gpt2", "llama", "qwen2")


def save_base(model_type: str, folder: Path) -> Path:
    """A random encoder of a family with its word tokenizer, as prepare-base leaves a real one."""
    return save_model(model_type, _SHARED | (_OF_DEBERTA if model_type == "deberta" else {}), folder)


def save_model(model_type: str, config: dict[str, Any], folder: Path, auto: Any = AutoModel) -> Path:
    torch.manual_seed(0)
    model = auto.from_config(AutoConfig.for_model(model_type, **config))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)  # far enough from 0 that logits differ from row to row
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_random(model_type: str, folder: Path, auto: Any = AutoModel) -> Path:
    return save_model(model_type, MODELS[model_type][0], folder, auto)


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of whole words."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)


def make_task(kind: str = "classification", **changes: Any) -> Task:
    """A task file's content; `changes` replace whole sections or keys of `finetune`."""
    data: dict[str, Any] = {
        "kind": kind,
        "source": {"type": "files", "train": "train.csv", "validation": "validation.csv"},
        "columns": {"text": "text", "label": "label"},
    }
    data |= {"labels": ["bad", "good"]} if kind == "classification" else {"range": [-4, 4]}
    finetune = {"steps": 8, "batch_size": 4, "lr": 0.01, "head_lr": 0.01, "max_length": 32}
    task = {
        "data": data,
        "condition": {"description": "Tell good films from bad ones.", "paraphrases": ["Is the film good?"]},
        "metrics": ["accuracy", "f1"] if kind == "classification" else ["pearson", "spearman"],
        "finetune": finetune | changes.pop("finetune", {}),
    }
    return parse(Task, {**task, **changes}, "task.yaml")


def make_rows(count: int, seed: int, kind: str = "classification") -> pd.DataFrame:
    """Sentences of 3 to 10 words with one word that decides the label."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        words = list(rng.choice(FILLERS, size=rng.integers(2, 10)))
        words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(GOOD if i % 2 else BAD)))
        label = float(i % 2) if kind == "classification" else float(rng.uniform(0, 4) * (1 if i % 2 else -1))
        rows.append((" ".join(words), "", label))
    return pd.DataFrame(rows, columns=["text", "text_pair", "label"])


def save_rows(folder: Path, kind: str = "classification") -> Path:
    """A prepared task: 40 training and 24 validation rows."""
    folder.mkdir(parents=True)
    make_rows(40, 0, kind).to_parquet(folder / "train.parquet", index=False)
    make_rows(24, 1, kind).to_parquet(folder / "validation.parquet", index=False)
    return folder


def make_collect(**changes: Any) -> Collect:
    """The section `collect` of a short run: 4 states."""
    settings = {"rank": 2, "alpha": 4.0, "max_checkpoints": 4, "validate_every": 4}
    return parse(Collect, settings | changes, "params.yaml", "collect")


def make_zoo(base: Path, count: int = 6, num_outputs: int = 2) -> tuple[Zoo, PeftModel]:
    """A zoo of random checkpoints and a random head for a base, and the PEFT model whose layout it has."""
    model = peft_model(base, num_outputs, 0, 2, 4.0, "auto").eval()
    generator = torch.Generator().manual_seed(1)
    layout = layout_of(model)
    theta = 0.3 * torch.randn(count, layout.K, generator=generator)
    head = {key: torch.randn(value.shape, generator=generator) for key, value in head_state(model).items()}
    config = lora_config(model, "films", make_collect()) | {"num_outputs": num_outputs}
    return Zoo(theta, layout, head, config), model


def make_layout(layers: int = 3, rank: int = 2, width: int = 5) -> Layout:
    """One module a layer, and one tensor outside all layers in front."""
    names = {-1: "embeddings.word"} | {layer: f"encoder.layer.{layer}.query" for layer in range(layers)}
    entries = [
        Entry(f"base_model.model.{name}.lora_{matrix}.weight", shape, 0, layer, "query" if layer >= 0 else name)
        for layer, name in names.items()
        for matrix, shape in (("A", (rank, width)), ("B", (width, rank)))
    ]
    return Layout.of(entries)


def make_toy() -> tuple[nn.Sequential, Layout]:
    """A base model of two linear modules, and the layout of their LoRA of rank 2."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).requires_grad_(False)
    entries = [
        Entry(f"base_model.model.{name}.lora_{matrix}.weight", shape, 0, -1, name)
        for name, (i, o) in {"0": (6, 5), "2": (5, 3)}.items()
        for matrix, shape in (("A", (2, i)), ("B", (o, 2)))
    ]
    return model, Layout.of(entries)


def collect_with_two_processes(name: str, task: tasks.Task, collect: Collect) -> str:
    """Runs finetune-collect in the working folder, which holds data/tasks and data/base; gives what it printed."""
    write_json(Path("params.yaml"), {"domain": "text", "collect": collect.model_dump()})
    (SETTINGS / name).mkdir(parents=True)
    for section, value in task.model_dump(mode="json", exclude_none=True).items():
        write_json(SETTINGS / name / f"{section}.json", value)
    more = {"PYTHONPATH": str(Path(__file__).parents[1]), "CONDPDIFF_DEVICE": "cpu", "CONDPDIFF_PROCESSES": "2"}
    command = [sys.executable, "-m", "stages.finetune_collect", name]
    done = subprocess.run(command, env=os.environ | more, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
