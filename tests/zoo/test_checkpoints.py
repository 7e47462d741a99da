"""A zoo folder: LoRA tensors <-> theta without loss, the last N checkpoints, one line when its files disagree."""

from pathlib import Path
from typing import Any

import pytest
import torch

from condpdiff.common.matrices import whole
from condpdiff.text.models import empty_peft_model
from condpdiff.zoo.checkpoints import (
    THETA,
    Layout,
    Zoo,
    check_length,
    flatten,
    layout_of,
    load_zoo,
    open_zoo,
    open_zoos,
    save_zoo,
    unflatten,
)
from tests.messages import message_of
from tests.stand_ins import HIDDEN, LAYERS, make_layout, make_zoo
from tests.tensors import random

CONFIG = {"rank": 2, "alpha": 4.0}
LAYOUT = make_layout()


def write_zoo(folder: Path, layout: Layout = LAYOUT, *family: int) -> Path:
    save_zoo(folder, Zoo(random(*family, 7, layout.K), layout, {"head": torch.ones(2)}, CONFIG))
    return folder


@pytest.mark.parametrize("last", [7, 3])
def test_last_n_checkpoints_are_read_with_layout_head_and_config(last: int, tmp_path: Path) -> None:
    zoo = load_zoo(write_zoo(tmp_path), last)
    assert torch.equal(zoo.theta, random(7, LAYOUT.K)[7 - last :])
    assert torch.equal(zoo.head["head"], torch.ones(2)) and zoo.config == CONFIG
    theta, layout = open_zoo(tmp_path, last)  # in parts
    assert torch.equal(whole(theta), zoo.theta)
    assert layout == zoo.layout == LAYOUT


@pytest.mark.parametrize("read", [load_zoo, open_zoo])
def test_files_that_disagree_and_too_few_checkpoints_are_one_line(read: Any, tmp_path: Path) -> None:
    says = message_of(read, write_zoo(tmp_path), 8)
    assert says == f"params.yaml: normalize.n_checkpoints: found 8, allowed: at most 7 ({tmp_path})"
    make_layout(2).save(tmp_path)
    expected = f"{THETA}: found {LAYOUT.K} weights, allowed: the layout's K = {make_layout(2).K}"
    assert message_of(read, tmp_path, 3).endswith(expected)


@pytest.mark.parametrize("last", [None, 7, 2])
def test_member_s_zoo_is_its_block_of_the_family_s(last: int | None, tmp_path: Path) -> None:
    theta = random(3, 7, LAYOUT.K)[:, -(last or 7) :]
    rows, found = open_zoo(write_zoo(tmp_path, LAYOUT, 3) / "2", last)
    assert found == LAYOUT and torch.equal(whole(rows), theta[2])
    zoo = load_zoo(tmp_path / "1", last)
    assert torch.equal(zoo.theta, theta[1])
    assert zoo.config == CONFIG and torch.equal(zoo.head["head"], torch.ones(2))
    allowed = "found F32 [3, 7, 80], allowed: F32 [more than 3, rows, weights]"
    assert message_of(open_zoo, tmp_path / "3").endswith(allowed)


def test_tasks_of_a_run_share_one_layout(tmp_path: Path) -> None:
    for name, layers in (("a", 3), ("b", 3), ("c", 2)):
        write_zoo(tmp_path / name, make_layout(layers))
    zoos, layout = open_zoos(tmp_path, ["b", "a"], 3)
    assert list(zoos) == ["b", "a"] and layout == LAYOUT
    assert torch.equal(whole(zoos["a"]), whole(open_zoo(tmp_path / "a", 3)[0]))
    says = message_of(open_zoos, tmp_path, ["a", "b", "c"])
    assert says.endswith(f"c/layout.json: found another layout than {tmp_path / 'a'}'s; same base and rank?")


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
