"""The layout: LoRA tensors <-> theta without loss, and the choice of layers."""

from pathlib import Path

import pytest
import torch

from condpdiff.common.errors import UserError
from condpdiff.text.models import empty_peft_model
from condpdiff.zoo.layout import Layout, check_length, flatten, layout_of, unflatten
from tests.stand_ins import HIDDEN, LAYERS, make_layout, make_zoo


def random_tensors(layout: Layout) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {e.key: torch.randn(e.shape, generator=generator) for e in layout.entries}


def test_flatten_and_unflatten_are_exact_inverses_in_float32() -> None:
    layout = make_layout()
    tensors = random_tensors(layout)
    theta = flatten(tensors, layout)
    assert theta.shape == (layout.K,)
    back = unflatten(theta, layout)
    assert list(back) == [e.key for e in layout.entries]
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)
    halves = {key: value.half() for key, value in tensors.items()}
    assert torch.equal(flatten(halves, layout), torch.cat([halves[e.key].flatten().float() for e in layout.entries]))


@pytest.mark.parametrize("model_type", ["bert", "roberta", "deberta"])
def test_layout_of_a_model_names_layers_and_modules_without_gaps(model_type: str, base) -> None:
    zoo, model = make_zoo(base(model_type))
    layout = zoo.layout
    assert [e.offset for e in layout.entries] == [
        sum(p.size for p in layout.entries[:i]) for i in range(len(layout.entries))
    ]
    assert {e.layer for e in layout.entries} == set(range(LAYERS))
    modules = {e.module for e in layout.entries}
    assert "attention.output.dense" in modules
    assert len(layout.entries) == LAYERS * len(modules) * 2
    shapes = {
        name.replace(".default.", "."): tuple(p.shape) for name, p in model.named_parameters() if ".lora_" in name
    }
    assert shapes == {e.key: e.shape for e in layout.entries}
    config = model.get_base_model().config.to_dict()
    assert layout_of(empty_peft_model(config, 2, 4.0, "auto")) == layout  # without memory for the weights
    if model_type == "bert":
        assert layout.K == LAYERS * 4 * 2 * (HIDDEN + HIDDEN)  # four projections a layer, rank 2


@pytest.mark.parametrize(("layers", "expected"), [((1, 2), {1, 2}), ((3, 3), {3}), (None, {-1, 0, 1, 2, 3})])
def test_first_and_last_layer_are_both_selected(layers: tuple[int, int] | None, expected: set[int]) -> None:
    layout = make_layout(4)
    chosen, positions = layout.select_layers(layers)
    assert {e.layer for e in chosen.entries} == expected
    assert (chosen == layout) == (layers is None)  # every tensor, even outside the layers
    assert len(positions) == chosen.K
    theta = torch.arange(layout.K, dtype=torch.float32)
    whole, part = unflatten(theta, layout), unflatten(theta[positions], chosen)
    assert all(torch.equal(part[key], whole[key]) for key in part)


@pytest.mark.parametrize("layers", [(0, 3), (3, 5)])
def test_layers_beyond_the_last_are_refused(layers: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=r"normalize.layers: found \[\d, \d\], allowed: layers 0 to 2$"):
        make_layout(3).select_layers(layers)


def test_what_does_not_fit_the_layout_is_named() -> None:
    layout = make_layout(1)
    tensors = random_tensors(layout)
    key = layout.entries[2].key
    with pytest.raises(UserError, match=rf"{key}: found no such tensor, allowed: shape \[2, 5\]"):
        flatten({k: v for k, v in tensors.items() if k != key}, layout)
    with pytest.raises(UserError, match=rf"{key}: found shape \[5, 2\], allowed: shape \[2, 5\]"):
        flatten(tensors | {key: tensors[key].T}, layout)
    with pytest.raises(UserError, match=rf"theta: found {layout.K - 1} weights, allowed: the layout's K = {layout.K}"):
        unflatten(torch.zeros(layout.K - 1), layout)
    with pytest.raises(UserError, match="^w: found 3 weights"):
        check_length(torch.zeros(7, 3), layout, "w")


def test_saved_layout_comes_back_equal(tmp_path: Path) -> None:
    make_layout().save(tmp_path)
    assert Layout.load(tmp_path) == make_layout()
