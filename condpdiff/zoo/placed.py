"""LoRAs in their place: the linear modules that a layout names, and many LoRAs on one base model at once."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from condpdiff.common.errors import UserError
from condpdiff.zoo.checkpoints import Layout

PREFIX = "base_model.model."  # what PEFT puts before the base model's own names
LINEAR = (nn.Linear, Conv1D)  # what a LoRA can be merged into; Conv1D (GPT-2's) has its weight turned round


def weight_of(module: nn.Module) -> Tensor:
    """The weight [out, in] of a linear module; of a Conv1D a view of it."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.data.T if isinstance(module, Conv1D) else weight.data


def merge_targets(model: nn.Module, layout: Layout) -> dict[str, nn.Module]:
    """The linear modules that a layout names, by name; a UserError where one lacks or has another shape."""
    names = sorted({e.key.removeprefix(PREFIX).split(".lora_")[0] for e in layout.entries})
    shapes = {e.key: e.shape for e in layout.entries}
    found: dict[str, nn.Module] = {}
    for name in names:
        a, b = (shapes[f"{PREFIX}{name}.lora_{m}.weight"] for m in "AB")
        try:
            module = model.get_submodule(name)
        except AttributeError:
            says = f"data/base: no module {name!r}, which the zoo's layout names; rerun finetune-collect"
            raise UserError(says) from None
        if not isinstance(module, LINEAR):
            raise UserError(f"data/base: {name}: found {type(module).__name__}, allowed: Linear (the layout's)")
        shape, expected = list(weight_of(module).shape), [b[0], a[1]]
        if shape != expected:
            raise UserError(f"data/base: {name}: found {shape}, allowed: {expected} (the layout's)")
        found[name] = module
    return found


@contextmanager
def batched_loras(model: nn.Module, layout: Layout, scale: float, theta: Tensor) -> Iterator[None]:
    """Inside, the model works under S LoRAs at once: of a batch of S V rows, rows s V to (s + 1) V - 1 under the s-th.

    Differentiable in theta [S, K]; the scale is alpha / r. One pass costs what a pass of the bare model does, and S
    products of rank r a module.
    """
    # Split at once: of a slice each, every gradient would be a whole theta of zeros.
    split = theta.split([e.size for e in layout.entries], dim=1)
    parts = {e.key: part.unflatten(1, e.shape) for e, part in zip(layout.entries, split, strict=True)}  # [S, *shape]
    with ExitStack() as hooks:
        for name, module in merge_targets(model, layout).items():
            a, b = (parts[f"{PREFIX}{name}.lora_{m}.weight"] for m in "AB")  # [S, r, in], [S, out, r]
            hooks.enter_context(module.register_forward_hook(_adds(a, b, scale)))
        yield


def _adds(a: Tensor, b: Tensor, scale: float) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0].reshape(len(a), -1, a.shape[2])  # [S, V tokens, in]
        out = output.reshape(len(a), -1, b.shape[1])  # [S, V tokens, out]
        return torch.baddbmm(out, torch.bmm(x, a.mT), b.mT, alpha=scale).reshape(output.shape)

    return hook
