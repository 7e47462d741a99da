"""Section `collect`: how the states are shared between runs."""

import pytest

from condpdiff.common.errors import UserError
from tests.stand_ins import make_collect


def test_one_run_at_a_constant_rate_is_the_default() -> None:
    assert (make_collect().runs, make_collect().lr_cycle) == (1, None)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"runs": 3}, "collect.runs: found 3, allowed: a divisor of max_checkpoints = 4"),
        ({"runs": 0}, "collect.runs: found 0, allowed: greater than 0"),
        ({"lr_cycle": 0}, "collect.lr_cycle: found 0, allowed: greater than 0"),
    ],
)
def test_wrong_share_is_one_line(keys: dict[str, int], line: str) -> None:
    with pytest.raises(UserError) as error:
        make_collect(**keys)
    assert str(error.value) == f"params.yaml: {line}"
