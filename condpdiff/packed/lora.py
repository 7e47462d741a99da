"""One generated LoRA."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from condpdiff.common.files import new_directory
from condpdiff.packed.card import adapter_card
from condpdiff.packed.config import Config
from condpdiff.zoo.adapters import write_adapter
from condpdiff.zoo.layout import Layout, unflatten


@dataclass(frozen=True)
class Lora:
    """A LoRA with its head, where it has one, and with what it was made from."""

    theta: Tensor
    """[K] float32."""
    layout: Layout
    head: dict[str, Tensor]
    """The head's tensors by PEFT key; empty where nothing but the LoRA is generated."""
    labels: list[str] | None
    """Class names in the order of their indices."""
    config: Config
    """Of the generator that made it."""
    task: str
    """The task whose head and statistics it has."""
    base: str
    """What it names as its base model."""
    how: dict[str, str]
    """What it was made from, in words."""

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors by PEFT key."""
        return {**unflatten(self.theta, self.layout), **self.head}

    def with_theta(self, theta: Tensor, head: dict[str, Tensor], **how: str) -> "Lora":
        """The same with other weights [K] and another head; `how` says what was done."""
        return replace(self, theta=theta, head=head, how={**self.how, **how})

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a PEFT adapter that `PeftModel.from_pretrained` loads, with `labels.json` and a card.

        Raises:
            OSError: it can't be written.
        """
        out = Path(folder)
        with new_directory(out) as scratch:
            lora = self.config.lora
            text = adapter_card(self.config, self.task, self.how, self.base, out)
            write_adapter(scratch, self.state_dict(), lora.model_dump(), self.base, text, self.labels)
