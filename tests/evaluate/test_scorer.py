"""What a scorer of any domain does: W0 + (alpha / r) B A and back, losses, one line if nothing fits."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from condpdiff.zoo.layout import Layout, unflatten
from tests.evaluate.conftest import SETTINGS, Stand
from tests.messages import message_of


def test_merged_weight_is_w0_plus_scaled_ba(scorer: Any, stand: Stand) -> None:
    scorer.merge(stand.zoo.theta[0])
    tensors = unflatten(stand.zoo.theta[0], stand.zoo.layout)
    assert len(scorer.modules) == 2 * 4  # layers, projections
    for name, module in scorer.modules.items():
        a, b = (tensors[f"base_model.model.{name}.lora_{m}.weight"] for m in "AB")
        expected = scorer.base_weights[name].cpu() + 4.0 / 2 * b @ a
        torch.testing.assert_close(module.weight.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_merges_do_not_add_up_and_none_restores_w0_to_the_bit(scorer: Any, stand: Stand) -> None:
    def merged(theta: torch.Tensor | None) -> tuple[list[torch.Tensor], np.ndarray]:
        scorer.merge(theta)
        return [module.weight.clone() for module in scorer.modules.values()], scorer.losses("loss")

    first, _, again, other, none = (
        merged(theta)
        for theta in (stand.zoo.theta[1], stand.zoo.theta[0] * np.nan, stand.zoo.theta[1], stand.zoo.theta[2], None)
    )
    assert all(map(torch.equal, first[0], again[0])) and np.array_equal(first[1], again[1])
    assert first[1].shape == (6,) and first[1].dtype == np.float64 and not np.allclose(first[1], other[1])
    assert all(map(torch.equal, none[0], scorer.base_weights.values()))
    assert scorer.passes == {"loss": 30}


def test_losses_of_parts_are_those_of_the_whole(racing_scorer: Any, stand: Stand) -> None:
    racing_scorer.merge(stand.zoo.theta[2])
    parts = [racing_scorer.losses(name) for name in racing_scorer.rows if name.startswith("select ")]
    whole = racing_scorer.losses("select")
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4)
    assert np.ptp(whole) > 0.01
    assert sum(racing_scorer.passes.values()) == 20


def test_what_does_not_fit_the_base_is_named(scorer: Any, stand: Stand) -> None:
    assert "theta: found 3 weights" in message_of(scorer.merge, torch.zeros(3))
    name, kind = "bert.embeddings.word_embeddings", "Embedding"
    key = next(iter(scorer.modules))
    zoos = {
        r"data/base: no module '\S*\.9\.\S*', .*rerun finetune-collect": lambda e: {"key": e.key.replace(".1.", ".9.")},
        r"found \[16, 16\], allowed: \[16, 99\]": lambda e: {"shape": (2, 99) if e.shape[0] == 2 else e.shape},
        f"{name}: found {kind}, allowed: Linear": lambda e: {"key": e.key.replace(key, name)},
    }
    for said, change in zoos.items():
        entries = tuple(replace(entry, **change(entry)) for entry in stand.zoo.layout.entries)
        message = message_of(stand.scorer, SETTINGS, replace(stand.zoo, layout=Layout(entries)))
        assert re.search(said, message)
