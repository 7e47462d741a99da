"""The condition y of each task: text through a frozen encoder, a one-hot vector, or an index to learn (Table 4b)."""

import torch
from torch import Tensor

from condpdiff.params.condition import Condition
from condpdiff.text_encoder import load_encoder


def conditions(
    settings: Condition, described: dict[str, dict[str, list[str]]]
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Conditions of every task.

    A task has as many text conditions as it has descriptions times two-shot draws: the condition is a
    distribution, of which training draws one a row.

    Args:
        described: `task_info` and `few_shot` texts of each task.

    Returns:
        y [V, d_cond] float32 of each task (`learnable`: task indices [1, 1]), and the texts behind them.
    """
    if settings.kind == "one_hot":
        eye = torch.eye(len(described))
        return {name: eye[q : q + 1] for q, name in enumerate(described)}, {}
    if settings.kind == "learnable":
        return {name: torch.tensor([[float(q)]]) for q, name in enumerate(described)}, {}
    texts = {name: condition_texts(settings.kind, parts) for name, parts in described.items()}
    encode = load_encoder(settings)
    return {name: encode(lines) for name, lines in texts.items()}, texts


def condition_texts(kind: str, parts: dict[str, list[str]]) -> list[str]:
    """All texts of a task under one of the three text kinds."""
    if kind != "task_info_few_shot":
        return parts[kind]
    return [f"{info}\n{shots}" for info in parts["task_info"] for shots in parts["few_shot"]]
