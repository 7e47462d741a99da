"""Random stand-ins of the style domain's zoos, and a style's file. Nothing here was trained on anything."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from condpdiff.common.settings import parse
from condpdiff.style.models import peft_transformer, target_modules
from condpdiff.style.task import Task
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.layout import layout_of
from tests.style.stand_ins_style import SIZE


def make_style_task(**finetune: Any) -> Task:
    """A style's file of a few steps."""
    task = {
        "data": {"size": SIZE, "source": {"type": "folder", "path": "waves"}},
        "condition": {"description": "Waves"},
        "metrics": ["fd_lite0"],
        "finetune": {"steps": 6, "batch_size": 4, "lr": 0.01} | finetune,
    }
    return parse(Task, task, "task.yaml")


def make_style_zoo(base: Path, count: int = 6) -> tuple[Zoo, PeftModel]:
    """A zoo of random checkpoints for a base, and the PEFT model whose layout it has."""
    model = peft_transformer(base, 0, 2, 4.0, "auto").eval()
    layout = layout_of(model)
    theta = 0.1 * torch.randn(count, layout.K, generator=torch.Generator().manual_seed(1))
    config = {
        "rank": 2, "alpha": 4.0, "target_modules": target_modules("auto"), "modules_to_save": [], "task": "waves",
    }  # fmt: skip
    return Zoo(theta, layout, {}, config), model
