"""Both domains are what domain.py says: mypy holds the modules below against the Protocols, this test the packages."""

import inspect
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_args, get_overloads

import pytest

from condpdiff import domain
from condpdiff.common.settings import DOMAINS

if TYPE_CHECKING:
    import condpdiff.style.base
    import condpdiff.style.conditions
    import condpdiff.style.data
    import condpdiff.style.encoder
    import condpdiff.style.families.losses
    import condpdiff.style.models
    import condpdiff.style.task
    import condpdiff.style.unseen.evaluate
    import condpdiff.style.unseen.fresh
    import condpdiff.text.base
    import condpdiff.text.conditions
    import condpdiff.text.data
    import condpdiff.text.encoder
    import condpdiff.text.families.losses
    import condpdiff.text.finetune
    import condpdiff.text.models
    import condpdiff.text.nonsense
    import condpdiff.text.report
    import condpdiff.text.score
    import condpdiff.text.task
    import condpdiff.text.unseen.evaluate
    import condpdiff.text.unseen.fresh

    tasks: list[domain.TaskModule] = [condpdiff.text.task, condpdiff.style.task]
    data: list[domain.DataModule] = [condpdiff.text.data, condpdiff.style.data]
    bases: list[domain.BaseModule] = [condpdiff.text.base, condpdiff.style.base]
    conditions: list[domain.ConditionsModule] = [condpdiff.text.conditions, condpdiff.style.conditions]
    encoders: list[domain.EncoderModule] = [condpdiff.text.encoder, condpdiff.style.encoder]
    models: list[domain.ModelsModule] = [condpdiff.text.models, condpdiff.style.models]
    finetunes: list[domain.FinetuneModule] = [condpdiff.text.finetune]
    scores: list[domain.ScoreModule] = [condpdiff.text.score]
    nonsense: list[domain.NonsenseModule] = [condpdiff.text.nonsense]
    reports: list[domain.ReportModule] = [condpdiff.text.report]
    families: list[domain.FamiliesModule] = [condpdiff.text.families.losses, condpdiff.style.families.losses]
    fresh: list[domain.FreshModule] = [condpdiff.text.unseen.fresh, condpdiff.style.unseen.fresh]
    unseen: list[domain.UnseenModule] = [condpdiff.text.unseen.evaluate, condpdiff.style.unseen.evaluate]


def modules() -> list[tuple[str, type]]:
    """The modules that stages may ask for, each with its Protocol."""
    asked = [inspect.signature(overload) for overload in get_overloads(domain.module)]
    return [(get_args(each.parameters["name"].annotation)[0], each.return_annotation) for each in asked]


@pytest.mark.parametrize(("name", "protocol"), modules())
def test_both_domains_have_the_module_with_the_same_entry_points(name: str, protocol: Any) -> None:
    for each in ("text",) if name in domain.OF_TEXT else DOMAINS:
        module: ModuleType = domain.module(name, each)  # type: ignore[call-overload]  # a name that is not in the source
        for entry in (entry for entry in vars(protocol) if not entry.startswith("_")):
            assert hasattr(module, entry), f"{each}.{name}.{entry}"
