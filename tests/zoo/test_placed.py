"""Many LoRAs on one base model at once work as each of them would alone."""

import pytest
import torch
from torch import Tensor, nn

from condpdiff.zoo.layout import Layout, unflatten
from condpdiff.zoo.placed import PREFIX, batched_loras, merge_targets
from tests.stand_ins import make_toy

S, V, SCALE = 3, 4, 2.0


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def toy() -> tuple[nn.Sequential, Layout]:
    return make_toy()


def merged(model: nn.Module, layout: Layout, theta: Tensor, x: Tensor) -> Tensor:
    """What the model gives with one LoRA [K] added to its weights."""
    parts = unflatten(theta, layout)
    weights = {
        f"{name}.weight": module.weight
        + SCALE * parts[f"{PREFIX}{name}.lora_B.weight"] @ parts[f"{PREFIX}{name}.lora_A.weight"]
        for name, module in merge_targets(model, layout).items()
    }
    return torch.func.functional_call(model, weights, x)


@pytest.mark.parametrize("shape", [(6,), (7, 6)])  # rows of a vector, and of tokens
def test_each_group_of_rows_passes_as_if_its_lora_were_merged(
    toy: tuple[nn.Sequential, Layout], shape: tuple[int, ...]
) -> None:
    (model, layout), x = toy, random(S * V, *shape)
    theta = random(S, layout.K, seed=1)
    with batched_loras(model, layout, SCALE, theta):
        found = model(x)
    alone = [merged(model, layout, each, rows) for each, rows in zip(theta, x.split(V), strict=True)]
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, model(x), atol=0.1)


def test_a_group_s_loss_has_gradients_of_its_own_lora_alone(toy: tuple[nn.Sequential, Layout]) -> None:
    (model, layout), x = toy, random(S * V, 6)
    theta = random(S, layout.K, seed=1).requires_grad_()
    with batched_loras(model, layout, SCALE, theta):
        model(x)[V : 2 * V].square().mean().backward()
    assert theta.grad is not None and not theta.grad[[0, 2]].any()
    alone = theta[1].detach().clone().requires_grad_()
    merged(model, layout, alone, x[V : 2 * V]).square().mean().backward()
    torch.testing.assert_close(theta.grad[1], alone.grad, rtol=1e-4, atol=1e-5)


def test_the_base_is_bare_again_afterwards_even_after_an_error(toy: tuple[nn.Sequential, Layout]) -> None:
    (model, layout), x = toy, random(S * V, 6)
    bare = model(x)
    with batched_loras(model, layout, SCALE, random(S, layout.K)):
        assert not torch.equal(model(x), bare)
    assert torch.equal(model(x), bare)
    with pytest.raises(KeyboardInterrupt), batched_loras(model, layout, SCALE, random(S, layout.K)):
        raise KeyboardInterrupt
    assert torch.equal(model(x), bare)
