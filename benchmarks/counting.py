"""What the benchmarks share: counts of floating-point operations (a multiply-add is two), and Markdown tables."""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def counted(work: Callable[..., object], *arguments: Any) -> int:
    """Floating-point operations of the matrix products, convolutions and attentions in `work(*arguments)`."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # PyTorch's counter leaves it out
    more = {attention: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)}
    with redirect_stderr(io.StringIO()), FlopCounterMode(display=False, custom_mapping=more) as counter:  # no bars
        work(*arguments)
    return counter.get_total_flops()


def repeated(work: Callable[[int], object], steps: int) -> int:
    """Operations of `work(steps)`, whose steps are all alike, out of `work(1)` and `work(2)`."""
    one, two = counted(work, 1), counted(work, 2)
    return one + (steps - 1) * (two - one)


def passes(model: Any, lengths: Sequence[int], size: int, backward: bool) -> int:
    """Operations of a classifier on the meta device over rows of these lengths, padded in batches of `size`."""

    def work(rows: int, tokens: int) -> None:
        logits = model(inputs_embeds=torch.empty(rows, tokens, model.config.hidden_size, device="meta")).logits
        if backward:
            logits.sum().backward()

    batches = [lengths[i : i + size] for i in range(0, len(lengths), size)]
    return sum(n * counted(work, *shape) for shape, n in Counter((len(b), max(b)) for b in batches).items())


def line(cells: Iterable[str]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def head(cells: Sequence[str]) -> str:
    """The first two lines of a Markdown table; the first column is a name."""
    return line(cells) + "\n|---" + "|--:" * (len(cells) - 1) + "|"


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print("\n" + head(names))
    for cells in rows:
        print(line(cells))
