"""Cond P-Diff: conditional LoRA parameter generation (arXiv 2408.01415) as a DVC pipeline."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from condpdiff.packed.generator import Generator as Generator
    from condpdiff.packed.generator import Lora as Lora


def __getattr__(name: str) -> Any:
    """The public classes; torch is imported when one of them is asked for."""
    if name not in ("Generator", "Lora"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from condpdiff.packed import generator

    return getattr(generator, name)
