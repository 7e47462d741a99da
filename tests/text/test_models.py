"""Model families: where the LoRA goes, what the head is, and the paper's K."""

from typing import Any

import pytest
import torch
from transformers import BertConfig, DebertaConfig, RobertaConfig

from condpdiff.text.models import (
    ATTENTION,
    HEADS,
    empty_peft_model,
    load_classifier,
    lora_config,
    peft_classifier,
    target_modules,
)
from condpdiff.zoo.collect import head_modules, head_state
from condpdiff.zoo.layout import layout_of
from tests.messages import message_of
from tests.stand_ins import make_zoo


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


@pytest.mark.parametrize("model_type", ["bert", "roberta", "deberta"])
def test_head_is_what_the_base_does_not_hold(model_type: str, base) -> None:
    _, model = make_zoo(base(model_type), model_type)
    assert {key.split(".")[2] for key in head_state(model)} == set(HEADS[model_type])
    assert head_modules(model) == sorted(HEADS[model_type])  # without `score`, which PEFT adds to its own list
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(".lora_" in name or "modules_to_save" in name for name in trained)


def test_head_depends_on_its_seed_alone(base) -> None:
    def head(seed: int) -> torch.Tensor:
        torch.rand(3)  # the global state must not matter
        return load_classifier(base("bert"), 2, seed).classifier.weight

    assert torch.equal(head(0), head(0))
    assert not torch.equal(head(0), head(1))


def test_modules_are_those_given_or_those_of_a_known_family(base) -> None:
    assert target_modules("gpt_neo", ["value", "query"]) == ["query", "value"]
    assert target_modules("bert", "auto") == sorted(ATTENTION["bert"])
    config = lora_config("bert", 4, 8.0, "auto")
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 8.0, 0.0)
    place = "params.yaml: collect.target_modules: found"
    message = message_of(target_modules, "gpt_neo", "auto")
    assert message.startswith(f"{place} 'auto' for model type 'gpt_neo'") and "bert, deberta" in message
    assert message_of(peft_classifier, base("bert"), 2, 0, 1, 1.0, ["no_such"]).startswith(f"{place} ['no_such']: ")
