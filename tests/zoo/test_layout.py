"""The layout: LoRA tensors <-> theta without loss, and the choice of layers."""

import pytest
import torch

from condpdiff.text.models import empty_peft_model
from condpdiff.zoo.layout import check_length, flatten, layout_of, unflatten
from tests.messages import message_of
from tests.stand_ins import HIDDEN, LAYERS, make_layout, make_zoo
from tests.tensors import random

LAYOUT = make_layout()
TENSORS = {e.key: random(*e.shape, seed=e.offset) for e in LAYOUT.entries}


def test_flatten_and_unflatten_are_exact_inverses_in_float32() -> None:
    theta = flatten(TENSORS, LAYOUT)
    assert theta.shape == (LAYOUT.K,)
    back = unflatten(theta, LAYOUT)
    assert list(back) == [e.key for e in LAYOUT.entries]
    assert all(torch.equal(back[key], tensor) for key, tensor in TENSORS.items())
    halves = {key: value.half() for key, value in TENSORS.items()}
    assert torch.equal(flatten(halves, LAYOUT), torch.cat([halves[e.key].flatten().float() for e in LAYOUT.entries]))


def test_layout_of_a_model_names_layers_and_modules_without_gaps(base) -> None:
    zoo, model = make_zoo(base("bert"))
    entries = zoo.layout.entries
    assert [e.offset for e in entries] == [sum(p.size for p in entries[:i]) for i in range(len(entries))]
    assert {e.layer for e in entries} == set(range(LAYERS))
    modules = {e.module for e in entries}
    assert "attention.output.dense" in modules and len(entries) == LAYERS * len(modules) * 2
    named = {name.replace(".default.", "."): p for name, p in model.named_parameters()}
    assert {e.key: e.shape for e in entries} == {k: tuple(p.shape) for k, p in named.items() if ".lora_" in k}
    config = model.get_base_model().config.to_dict()
    assert layout_of(empty_peft_model(config, 2, 4.0, "auto")) == zoo.layout  # without memory for the weights
    assert zoo.layout.K == LAYERS * 4 * 2 * (HIDDEN + HIDDEN)  # four projections a layer, rank 2


@pytest.mark.parametrize(("layers", "expected"), [((1, 2), {1, 2}), ((3, 3), {3}), (None, {-1, 0, 1, 2, 3})])
def test_first_and_last_layer_are_both_selected(layers: tuple[int, int] | None, expected: set[int]) -> None:
    layout = make_layout(4)
    chosen, positions = layout.select_layers(layers)
    assert {e.layer for e in chosen.entries} == expected
    assert (chosen == layout) == (layers is None)  # every tensor, even outside the layers
    theta = torch.arange(layout.K, dtype=torch.float32)
    whole, part = unflatten(theta, layout), unflatten(theta[positions], chosen)
    assert all(torch.equal(part[key], whole[key]) for key in part)


def test_what_does_not_fit_the_layout_is_named() -> None:
    key = LAYOUT.entries[2].key
    without = {k: v for k, v in TENSORS.items() if k != key}
    assert f"{key}: found no such tensor, allowed: shape [2, 5]" in message_of(flatten, without, LAYOUT)
    turned = TENSORS | {key: TENSORS[key].T}
    assert f"{key}: found shape [5, 2], allowed: shape [2, 5]" in message_of(flatten, turned, LAYOUT)
    says = message_of(unflatten, torch.zeros(LAYOUT.K - 1), LAYOUT)
    assert says == f"theta: found {LAYOUT.K - 1} weights, allowed: the layout's K = {LAYOUT.K}"
    assert message_of(check_length, torch.zeros(7, 3), LAYOUT, "w").startswith("w: found 3 weights")
    for layers in ((0, 3), (3, 5)):
        assert message_of(LAYOUT.select_layers, layers).endswith(f"found {list(layers)}, allowed: layers 0 to 2")
