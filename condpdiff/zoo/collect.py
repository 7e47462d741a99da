"""Fine-tune a LoRA and collect its last states: the zoo Theta [N, K] of a task that is no family.

What a domain brings is a `Finetuning`: its model, the batches, a score and a sentence about what was learned.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn

from condpdiff.common.files import new_directory
from condpdiff.common.hardware import rank, share
from condpdiff.common.stage import folder_of
from condpdiff.common.task import Finetune
from condpdiff.common.training import Gathered, Schedule, fit
from condpdiff.zoo.checkpoints import Layout, Zoo, flatten, layout_of, save_zoo, unflatten
from condpdiff.zoo.settings import Collect

if TYPE_CHECKING:
    from peft import PeftModel

LOG_EVERY = 10


class BatchLoss(nn.Module):
    """A PEFT model as the module whose call gives the mean loss of a batch: what DDP watches."""

    def __init__(self, model: "PeftModel") -> None:
        super().__init__()
        self.model = model


class Finetuning(ABC):
    """The fine-tuning of one task, as its domain knows it."""

    config: Mapping[str, Any] = {}  # what else the zoo's file says of its states
    head_lr: float = 0.0  # peak rate of the head's weights, where the model has a head

    def __init__(self, name: str, finetune: Finetune, collect: Collect) -> None:
        """A UserError if the processes can't share a batch."""
        share(finetune.batch_size)  # before the long work
        self.name, self.collect = name, collect
        self.finetune = finetune.model_copy(update={"steps": collect.steps or finetune.steps})
        self.steps = self.finetune.steps + collect.max_checkpoints * collect.every  # before the window and in it

    @abstractmethod
    def start(self) -> BatchLoss:
        """The base model with its LoRA (and a head, drawn from the seed alone), on the device; a UserError if it has
        no such target modules."""

    @abstractmethod
    def batches(self) -> Callable[[int], tuple[Any, ...]]:
        """Step -> what the `BatchLoss` takes of this process's share; it depends on the seed and the step alone."""

    @abstractmethod
    def score(self, model: "PeftModel") -> float:
        """How good the PEFT model is on the validation rows; the higher, the better."""

    @abstractmethod
    def verdict(self, scores: list[tuple[int, float]]) -> tuple[str, str | None]:
        """What to say of the scores by step, and what it is no better than, where nothing was learned."""


def collect_zoo(finetuning: Finetuning, out: Path) -> None:
    """Fine-tune and write the zoo folder; a UserError if the model has no such target modules."""
    name, collect = finetuning.name, finetuning.collect
    model, run, losses = _train(finetuning)
    if rank() > 0:
        return
    said, no_better_than = finetuning.verdict(run["scores"])
    print(f"{name}: {said}", flush=True)
    if no_better_than is not None:
        warning = f"not learned, no better than {no_better_than}; tune finetune in its task file"
        print(f"warning: {name}: {warning}", flush=True)
    config = {**lora_config(model, name, collect), **finetuning.config}
    with new_directory(out) as folder:
        save_zoo(folder, Zoo(run["theta"], layout_of(model), _head(model), config), steps=run["steps"])
        scores = pd.DataFrame(run["scores"], columns=["step", "score"])
        for file, curve in (("loss.csv", losses), ("validation.csv", scores)):
            curve.insert(0, "task", name)
            curve.to_csv(folder / file, index=False)


def train_from(finetuning: Finetuning, theta: Tensor, head: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Fine-tune a LoRA theta [K] and its head, by PEFT key, on; gives the last state of both."""
    model, run, _ = _train(finetuning, theta, head)
    return run["theta"][-1], _head(model)


def _head(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.cpu() for key, tensor in head_state(model).items()}


def _train(
    finetuning: Finetuning, theta: Tensor | None = None, head: Mapping[str, Tensor] | None = None
) -> tuple["PeftModel", Gathered, pd.DataFrame]:
    """From the first step, or the last resume point, to the end; from a LoRA and a head, or new ones.

    Gathers theta [N_max, K], the states of the window; steps [N_max] int64, after which each was taken; and scores, the
    validation scores by step, of which step 0 is before any training. The last that it gives is the curve of losses.
    """
    from peft import set_peft_model_state_dict  # seconds

    finetune, collect = finetuning.finetune, finetuning.collect
    loss = finetuning.start()
    model = loss.model
    draw_lora(model, collect.seed, collect.factors)
    layout, count = layout_of(model), collect.max_checkpoints
    if theta is not None:
        set_peft_model_state_dict(model, {**unflatten(theta, layout), **(head or {})})
    run = Gathered(theta=torch.zeros(count, layout.K), steps=torch.zeros(count, dtype=torch.int64), scores=[])

    def after_step(done: int) -> None:
        index, rest = divmod(done - finetune.steps, collect.every)
        if done > finetune.steps and rest == 0:
            run["theta"][index - 1] = lora_state(model, layout)
            run["steps"][index - 1] = done
        if rank() == 0 and (done % collect.validate_every == 0 or done == finetuning.steps):
            run["scores"].append((done, finetuning.score(model)))

    parameters = dict(model.named_parameters())
    loras = [p for key, p in parameters.items() if ".lora_" in key and p.requires_grad]
    groups = [{"params": loras, "lr": finetune.lr}]
    schedules = [lora_schedule(finetune, collect)]
    if trained := [p for key, p in parameters.items() if "modules_to_save" in key]:
        groups.append({"params": trained, "lr": finetuning.head_lr})
        schedules.append(head_schedule(finetune))
    optimizer = torch.optim.AdamW(groups, weight_decay=finetune.weight_decay, fused=True)
    batches = finetuning.batches()
    torch.manual_seed(collect.seed)  # of dropout
    losses = fit(
        loss,
        lambda network, step: network(*batches(step)),
        optimizer,
        steps=finetuning.steps,
        what=finetuning.name,
        schedule=schedules,
        after_step=after_step,
        log_every=LOG_EVERY,
        resume=folder_of(finetuning.name),
        state=[run],
        rate=f"{finetuning.name}: finetune.lr",
    )
    return model, run, losses


# --- rates --------------------------------------------------------------------------------------


def lora_schedule(finetune: Finetune, collect: Collect) -> Schedule:
    """The LoRA's rate rises over the warm-up and stays; in the window it is `collect.lr`: N different states."""
    window = (collect.lr or finetune.lr) / finetune.lr
    return lambda step: rise(step, finetune) if step < finetune.steps else window


def head_schedule(finetune: Finetune) -> Schedule:
    """The head's rate rises as the LoRA's and falls to 0 where the window opens: all states have the same head."""
    return lambda step: rise(step, finetune) * max(0.0, 1 - step / finetune.steps)


def rise(step: int, finetune: Finetune) -> float:
    """The factor of a rate in its warm-up, and 1 after it."""
    return min(1.0, (step + 1) / max(1, round(finetune.warmup * finetune.steps)))


# --- what is inside a PEFT model ----------------------------------------------------------------


@torch.no_grad()
def draw_lora(model: nn.Module, seed: int, factors: str = "both") -> None:
    """Start the LoRA at an A that depends on `seed` and the layout alone, and B = 0; if A alone trains, the other way.

    PEFT draws A from torch's global generator, after a head has drawn from it: heads of other sizes would give other A,
    and LoRAs can be averaged, and share statistics, in one frame only.
    """
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in model.named_parameters():
        if ".lora_A." not in key and ".lora_B." not in key:
            continue
        trained = _trains(key, factors)
        parameter.requires_grad_(trained)
        if ".lora_A." in key if factors != "A" else not trained:
            drawn = torch.empty(parameter.shape)  # on the CPU, which draws the same for all devices
            parameter.copy_(nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator))
        else:
            parameter.zero_()


def lora_state(model: nn.Module, layout: Layout) -> Tensor:
    """The LoRA matrices of a PEFT model as theta [K]."""
    return flatten({key.replace(".default.", "."): p for key, p in model.named_parameters()}, layout)


def trained_part(layout: Layout, factors: str) -> Tensor:
    """[K] 1 where theta trains, 0 where it stays as `draw_lora` drew it."""
    return torch.cat([torch.full((e.size,), float(_trains(e.key, factors))) for e in layout.entries])


def _trains(key: str, factors: str) -> bool:
    """Whether `collect.factors` lets a matrix of the LoRA train."""
    return factors == "both" or f".lora_{factors}." in key


def head_state(model: nn.Module) -> dict[str, Tensor]:
    """The trained head under the keys of a PEFT adapter file; empty where nothing but the LoRA is trained."""
    return {
        key.replace("modules_to_save.default.", ""): parameter.detach().clone()
        for key, parameter in model.named_parameters()
        if "modules_to_save" in key
    }


def lora_config(model: nn.Module, name: str, collect: Collect) -> dict[str, Any]:
    """What a zoo's file says of a PEFT model, whose own configuration lists some heads that it has not got."""
    placed: Any = model.peft_config["default"]  # type: ignore[index]
    names = (key.partition(".modules_to_save.") for key, _ in model.named_parameters())
    return {
        "rank": collect.rank,
        "alpha": collect.alpha,
        "target_modules": sorted(placed.target_modules),
        "modules_to_save": sorted({module.rpartition(".")[2] for module, inside, _ in names if inside}),
        "task_type": placed.task_type,
        "task": name,
    }
