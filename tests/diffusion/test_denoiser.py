"""The denoiser: shapes, and an output that depends on time, condition and null condition."""

import pytest
import torch

from condpdiff.diffusion.denoiser import Denoiser


def make(tasks: int = 0, **changes: object) -> Denoiser:
    """A denoiser whose zeroed last layers got random weights, as a few training steps would give."""
    torch.manual_seed(0)
    model = Denoiser(**{"C": 2, "L": 8, "channels": (8, 12, 16), "blocks": 1, "d_cond": 6, "tasks": tasks, **changes})
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def inputs(rows: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(1, 2, 8, generator=generator).expand(rows, -1, -1)
    return z, torch.full((rows,), 500), torch.randn(rows, 6, generator=generator)


@pytest.mark.parametrize(("C", "L", "blocks"), [(1, 4, 1), (4, 32, 2), (3, 12, 1)])
def test_prediction_has_the_shape_of_the_latent_and_is_zero_before_training(C: int, L: int, blocks: int) -> None:  # noqa: N803
    z, t, y = torch.randn(2, C, L), torch.tensor([0, 999]), torch.randn(2, 6)
    assert make(C=C, L=L, blocks=blocks)(z, t, y).shape == z.shape
    assert not Denoiser(C, L, (8, 12, 16), blocks, 6)(z, t, y).any()


def test_other_condition_or_timestep_gives_another_prediction_row_by_row() -> None:
    model = make()
    z, t, y = inputs()
    out = model(z, t, y)
    assert not torch.allclose(out[0], out[1], atol=1e-3)
    assert not torch.allclose(out[1], out[2], atol=1e-3)
    out = model(z, torch.tensor([10, 900, 10]), y[:1].expand(3, -1))
    assert not torch.allclose(out[0], out[1], atol=1e-3)
    torch.testing.assert_close(out[0], out[2])


def test_dropped_rows_all_get_the_null_condition_and_the_others_keep_theirs() -> None:
    model = make()
    z, t, y = inputs()
    plain, mixed = model(z, t, y), model(z, t, y, torch.tensor([True, False, True]))
    assert not torch.allclose(mixed[0], plain[0], atol=1e-3)
    torch.testing.assert_close(mixed[1], plain[1])
    torch.testing.assert_close(mixed[0], mixed[2])
    torch.testing.assert_close(model(z, t, y, torch.zeros(3, dtype=torch.bool)), plain)


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    model = make()
    z, t, y = torch.randn(5, 2, 8), torch.arange(5) * 100, torch.randn(5, 6)
    torch.testing.assert_close(model(z, t, y)[3:4], model(z[3:4], t[3:4], y[3:4]), rtol=1e-4, atol=1e-5)


def test_learnable_condition_is_an_index_into_learned_vectors() -> None:
    model = make(tasks=3)
    z, t, _ = inputs()
    out = model(z, t, torch.tensor([[0.0], [1.0], [0.0]]))
    assert not torch.allclose(out[0], out[1], atol=1e-3)
    torch.testing.assert_close(out[0], out[2])
    out[0].sum().backward()
    gradient = model.tau.table.weight.grad.abs().sum(1) > 0
    assert gradient.tolist() == [True, False, False]


def test_config_builds_the_same_network() -> None:
    model = make(tasks=3, performance=True)
    again = Denoiser(**model.config)
    again.load_state_dict(model.state_dict())
    z, t, _ = inputs()
    y = torch.tensor([[0.0], [1.0], [2.0]])
    assert torch.equal(again.eval()(z, t, y), model(z, t, y))


def test_performance_not_a_number_asks_for_none_row_by_row() -> None:
    model = make(performance=True)
    z, t, y = inputs()
    y = y[:1].expand(3, -1)
    none, mixed = model(z, t, y), model(z, t, y, p=torch.tensor([torch.nan, 0.0, 1.0]))
    torch.testing.assert_close(mixed[0], none[0])
    assert not torch.allclose(mixed[1], mixed[0], atol=1e-3)
    assert not torch.allclose(mixed[1], mixed[2], atol=1e-3)
