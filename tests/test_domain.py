"""Both domains are what domain.py says."""

import inspect

import pytest

from condpdiff.common.settings import DOMAINS
from condpdiff.domain import ENTRY_POINTS, OF_TEXT, module


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_both_domains_have_the_module_with_entry_points_of_as_many_parameters(name: str) -> None:
    domains = ("text",) if name in OF_TEXT else DOMAINS
    for entry in ENTRY_POINTS[name]:
        found = [getattr(module(name, domain), entry) for domain in domains]
        assert entry == "Task" or len({len(inspect.signature(each).parameters) for each in found}) == 1, entry
