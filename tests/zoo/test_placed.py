"""Many LoRAs on one base model at once work as each of them would alone."""

import pytest
import torch
from torch import Tensor

from condpdiff.zoo.layout import unflatten
from condpdiff.zoo.placed import PREFIX, batched_loras, merge_targets
from tests.stand_ins import make_toy
from tests.tensors import random

S, V, SCALE = 3, 4, 2.0
MODEL, LAYOUT = make_toy()


def merged(theta: Tensor, x: Tensor) -> Tensor:
    """What the model gives with one LoRA [K] added to its weights."""
    parts = unflatten(theta, LAYOUT)
    weights = {
        f"{name}.weight": module.weight
        + SCALE * parts[f"{PREFIX}{name}.lora_B.weight"] @ parts[f"{PREFIX}{name}.lora_A.weight"]
        for name, module in merge_targets(MODEL, LAYOUT).items()
    }
    return torch.func.functional_call(MODEL, weights, x)


@pytest.mark.parametrize("shape", [(6,), (7, 6)])  # rows of a vector, and of tokens
def test_each_group_of_rows_passes_as_if_its_lora_were_merged_and_afterwards_the_base_is_bare(
    shape: tuple[int, ...],
) -> None:
    x, theta = random(S * V, *shape), random(S, LAYOUT.K, seed=1)
    bare = MODEL(x)
    with batched_loras(MODEL, LAYOUT, SCALE, theta):
        found = MODEL(x)
    alone = [merged(each, rows) for each, rows in zip(theta, x.split(V), strict=True)]
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, bare, atol=0.1)
    with pytest.raises(KeyboardInterrupt), batched_loras(MODEL, LAYOUT, SCALE, theta):
        raise KeyboardInterrupt
    assert torch.equal(MODEL(x), bare)


def test_a_group_s_loss_has_gradients_of_its_own_lora_alone() -> None:
    x, theta = random(S * V, 6), random(S, LAYOUT.K, seed=1).requires_grad_()
    with batched_loras(MODEL, LAYOUT, SCALE, theta):
        MODEL(x)[V : 2 * V].square().mean().backward()
    assert theta.grad is not None and not theta.grad[[0, 2]].any()
    alone = theta[1].detach().clone().requires_grad_()
    merged(alone, x[V : 2 * V]).square().mean().backward()
    torch.testing.assert_close(theta.grad[1], alone.grad, rtol=1e-4, atol=1e-5)
