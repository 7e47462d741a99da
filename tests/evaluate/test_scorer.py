"""What both domains' scorers do alike: W0 + (alpha / r) B A and back, losses, one line if nothing fits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from condpdiff.common.errors import UserError
from condpdiff.evaluate.scorer import first_best
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.layout import Entry, Layout, unflatten
from tests.evaluate.conftest import RACING, SETTINGS, Stand


def with_entries(zoo: Zoo, change: Callable[[Entry], Entry]) -> Zoo:
    return replace(zoo, layout=Layout(tuple(change(entry) for entry in zoo.layout.entries)))


def test_merged_weight_is_w0_plus_scaled_ba(scorer: Any, stand: Stand) -> None:
    scorer.merge(stand.zoo.theta[0])
    tensors = unflatten(stand.zoo.theta[0], stand.zoo.layout)
    assert len(scorer.modules) == {"majority": 2 * 4, "floor": 2 * 2 * 4}[scorer.reference]  # layers, projections
    for name, module in scorer.modules.items():
        a, b = (tensors[f"base_model.model.{name}.lora_{m}.weight"] for m in "AB")
        expected = scorer.base_weights[name].cpu() + 4.0 / 2 * b @ a
        torch.testing.assert_close(module.weight.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_merges_do_not_add_up_and_none_restores_w0_to_the_bit(scorer: Any, stand: Stand) -> None:
    scorer.merge(stand.zoo.theta[1])
    once = {name: module.weight.clone() for name, module in scorer.modules.items()}
    scorer.merge(torch.full_like(stand.zoo.theta[0], float("nan")))
    scorer.merge(stand.zoo.theta[1])
    assert all(torch.equal(module.weight, once[name]) for name, module in scorer.modules.items())
    scorer.merge(None)
    assert all(torch.equal(module.weight, scorer.base_weights[name]) for name, module in scorer.modules.items())


def test_losses_of_a_candidate_are_the_same_again_and_another_one_s_differ(scorer: Any, stand: Stand) -> None:
    found = []
    for i in (0, 1, 0):
        scorer.merge(stand.zoo.theta[i])
        found.append(scorer.losses("loss"))
    assert found[0].shape == (6,) and found[0].dtype == np.float64
    assert np.array_equal(found[0], found[2])
    assert not np.allclose(found[0], found[1])
    assert scorer.passes == {"loss": 18}


def test_losses_of_parts_are_those_of_the_whole(racing_scorer: Any, stand: Stand) -> None:
    racing_scorer.merge(stand.zoo.theta[2])
    parts = [racing_scorer.losses(name) for name in racing_scorer.rows if name.startswith("select ")]
    whole = racing_scorer.losses("select")
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4)
    assert np.ptp(whole) > 0.01
    assert sum(racing_scorer.passes.values()) == 20


def test_rows_that_select_are_others_than_rate_checkpoints(stand: Stand, scorer: Any, racing_scorer: Any) -> None:
    assert {name: scorer.rows[name] for name in ("select", "loss")} == {"select": 10, "loss": 6}
    assert [n for name, n in racing_scorer.rows.items() if name.startswith("select ")] == [2, 3, 5]
    assert set(racing_scorer.rows) - set(scorer.rows) == {f"select {part}" for part in ("0:2", "2:5", "5:10")}
    assert (SETTINGS.select, RACING.select) == ("full", "racing")


@pytest.mark.parametrize(("select", "expected"), [([1, 3, 3], 1), ([np.nan, -2, -1], 2), ([np.nan] * 3, 0)])
def test_a_score_that_is_no_number_is_no_candidate_s_best(select: list[float], expected: int) -> None:
    assert first_best(np.array(select, dtype=np.float64)) == expected


# --- what does not fit --------------------------------------------------------------------------


def test_theta_of_another_length_is_refused(scorer: Any) -> None:
    with pytest.raises(UserError, match="theta: found 3 weights"):
        scorer.merge(torch.zeros(3))


def test_module_that_the_base_lacks_is_named(stand: Stand) -> None:
    other = with_entries(stand.zoo, lambda e: replace(e, key=e.key.replace(".1.", ".9.")))
    with pytest.raises(UserError, match=r"data/base: no module '\S*\.9\.\S*', .*rerun finetune-collect"):
        stand.scorer(SETTINGS, other)


def test_module_of_another_shape_or_kind_is_named(stand: Stand, scorer: Any) -> None:
    wider = with_entries(stand.zoo, lambda e: replace(e, shape=(2, 99)) if e.shape[0] == 2 else e)
    with pytest.raises(UserError, match=r"found \[16, 16\], allowed: \[16, 99\]"):
        stand.scorer(SETTINGS, wider)
    name, kind = stand.other
    key = next(iter(scorer.modules))
    with pytest.raises(UserError, match=f"{name}: found {kind}, allowed: Linear"):
        stand.scorer(SETTINGS, with_entries(stand.zoo, lambda e: replace(e, key=e.key.replace(key, name))))
