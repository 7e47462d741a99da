"""A zoo of one's own in place of fine-tuning: what checkpoints must be like to be a run's, and finetune-collect's work.

The folder inputs/NAME holds a zoo as data/zoo/<task> does, without curves: nobody saw the training.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from condpdiff.common.errors import UserError
from condpdiff.common.files import new_directory, read_config, read_json, read_tensors
from condpdiff.common.hardware import rank
from condpdiff.common.task import TASKS, Task
from condpdiff.domain import module
from condpdiff.zoo.checkpoints import HEAD, LAYOUT, THETA, Layout, Zoo, check_length, layout_of, save_zoo
from condpdiff.zoo.collect import head_state, lora_config
from condpdiff.zoo.settings import Collect


def expected(name: str, task: Task, collect: Collect, base: Path) -> Zoo:
    """The zoo, without checkpoints, that the run's base model and settings ask of a task; its head has shapes alone.
    Raises a UserError if the model has no such target modules, or not all matrices are trained."""
    if collect.factors != "both":
        raise UserError(f"params.yaml: collect.factors: found {collect.factors!r}, allowed: both with an imported zoo")
    outputs = getattr(task.data, "num_outputs", None)  # of a text task
    file = base / "transformer/config.json"
    model = read_json(file if file.is_file() else base / "config.json")
    about = {key: value for key, value in model.items() if key not in ("id2label", "label2id")}
    about |= {} if outputs is None else {"num_labels": outputs}
    placed = module("models").empty_peft_model(about, collect.rank, collect.alpha, collect.target_modules)
    config = lora_config(placed, name, collect)
    config |= {"factors": collect.factors} if outputs is None else {"num_outputs": outputs}
    layout = layout_of(placed)
    return Zoo(torch.empty(0, layout.K), layout, head_state(placed), config)


def described(zoo: Zoo) -> dict[str, Any]:
    """What two zoos of one task must have alike."""
    return zoo.config | {LAYOUT: zoo.layout, HEAD: {key: tuple(tensor.shape) for key, tensor in zoo.head.items()}}


def place(name: str, task: Task, collect: Collect, base: Path, out: Path) -> None:
    """Write the last N_max checkpoints of the task's own zoo as its zoo folder; the curves of training are empty.
    Raises a UserError if there are fewer, or they are of another rank, alpha, base or head than the run's."""
    if rank() > 0:
        return
    source, n = Path(str(task.zoo)), collect.max_checkpoints
    want = expected(name, task, collect, base)
    own, layout = read_tensors(source / THETA), Layout.load(source)
    count = own["theta"].shape[-2]
    if n > count:
        raise UserError(f"params.yaml: collect.max_checkpoints: found {n}, allowed: at most {count}, as in {source}")
    theta, steps = own["theta"][..., -n:, :], own["steps"][..., -n:]
    check_length(theta, layout, str(source / THETA))
    zoo = Zoo(theta, layout, read_tensors(source / HEAD), read_config(source / THETA))
    found = described(zoo) | {"task": name}
    for key, allowed in described(want).items():
        if found.get(key) != allowed:
            differ = "differs" if key in (LAYOUT, HEAD) else f"found {found.get(key)}, allowed: {allowed}"
            where = f"{TASKS / name}.yaml: zoo: {source}"
            raise UserError(f"{where}: {key}: {differ} (params.yaml: collect, base); run `condpdiff import` again")
    with new_directory(out) as folder:
        save_zoo(folder, replace(zoo, config=want.config), steps=steps)
        for curve, y in (("loss", "loss"), ("validation", "score")):
            pd.DataFrame(columns=["task", "step", y]).to_csv(folder / f"{curve}.csv", index=False)
    print(f"{name}: the last {n} of {count} checkpoints of {source}, in place of fine-tuning", flush=True)
