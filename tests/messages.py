"""What a user reads of what is wrong."""

from collections.abc import Callable
from typing import Any

import pytest

from condpdiff.common.errors import UserError


def message_of(call: Callable[..., object], *given: Any, **options: Any) -> str:
    """The one line that a call ends with."""
    with pytest.raises(UserError) as error:
        call(*given, **options)
    assert "\n" not in str(error.value)
    return str(error.value)
