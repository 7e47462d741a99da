"""Model families: where the LoRA goes, what the head is, and the paper's K."""

from typing import Any

import pytest
import torch
from transformers import BertConfig, DebertaConfig, RobertaConfig

from condpdiff.text.models import (
    ATTENTION,
    empty_peft_model,
    load_model,
    lora_config,
    target_modules,
)
from condpdiff.zoo.layout import layout_of
from tests.messages import message_of


@pytest.mark.parametrize(
    ("config", "rank", "expected"),
    [(BertConfig(), 16, 1_179_648), (RobertaConfig(), 1, 73_728), (DebertaConfig(), 1, 92_160)],
)
def test_k_of_the_base_models_is_the_papers(config: Any, rank: int, expected: int) -> None:
    if config.model_type == "deberta":  # as microsoft/deberta-base's config has it
        config.update({"relative_attention": True, "pos_att_type": ["c2p", "p2c"]})
    model = empty_peft_model(config.to_dict(), rank, 1.0, "auto")
    assert expected == layout_of(model).K
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_head_depends_on_its_seed_alone(base) -> None:
    def head(seed: int) -> torch.Tensor:
        torch.rand(3)  # the global state must not matter
        return load_model(base("bert"), 2, seed)[0].classifier.weight

    assert torch.equal(head(0), head(0))
    assert not torch.equal(head(0), head(1))


def test_modules_are_those_given_or_those_of_a_known_family() -> None:
    assert target_modules("gpt_neo", ["value", "query"]) == ["query", "value"]
    assert target_modules("bert", "auto") == sorted(ATTENTION["bert"])
    config = lora_config("bert", 4, 8.0, "auto", ["classifier"])
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 8.0, 0.0)
    place = "params.yaml: collect.target_modules: found"
    message = message_of(target_modules, "gpt_neo", "auto")
    assert message.startswith(f"{place} 'auto' for model type 'gpt_neo'") and "bert, deberta" in message
