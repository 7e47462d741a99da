"""An exported adapter is a PEFT adapter: the same tensors, and the same logits as our own merge."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from condpdiff.text.score import Scorer
from condpdiff.zoo.adapters import export_adapter
from condpdiff.zoo.checkpoints import Zoo, unflatten
from tests.stand_ins import make_rows, make_task, make_zoo

Exported = tuple[Path, Zoo, Path, PeftModel]


@pytest.fixture(scope="module")
def exported(base, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A base's folder, a zoo, an adapter of it, and what PEFT makes of the adapter, as the model card says."""
    folder, out = base("deberta"), tmp_path_factory.mktemp("adapter")
    zoo, _ = make_zoo(folder)
    export_adapter(out, zoo.theta[3], zoo, str(folder), "data/adapters/films", ["bad", "good"])
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    return folder, zoo, out, PeftModel.from_pretrained(model, str(out)).eval()


def test_peft_loads_every_tensor_and_the_config_is_in_order_and_names_its_base(exported: Exported) -> None:
    folder, zoo, adapter, model = exported
    expected = {**unflatten(zoo.theta[3], zoo.layout), **zoo.head}
    named = {name.replace("modules_to_save.", "").replace("default.", ""): p for name, p in model.named_parameters()}
    written = load_file(adapter / "adapter_model.safetensors")
    assert written.keys() == expected.keys() and {tensor.dtype for tensor in written.values()} == {torch.float32}
    assert all(torch.equal(named[key], expected[key]) for key in expected)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(zoo.config["target_modules"])
    modules = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    assert config["modules_to_save"] == sorted(set(config["modules_to_save"]) & modules)  # real ones, each once
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (2, 4.0, "SEQ_CLS")
    assert config["base_model_name_or_path"] == str(folder)


def test_code_of_the_card_runs_and_peft_unmerged_and_merged_and_our_merge_agree(exported: Exported) -> None:
    folder, zoo, adapter, _ = exported
    card = (adapter / "README.md").read_text()
    assert card.startswith("---\nbase_model: ")
    names: dict[str, PeftModel] = {}
    exec(card.partition("```python\n")[2].partition("```")[0].replace("data/adapters/films", str(adapter)), names)
    model, rows = names["model"], make_rows(6, 5)
    scorer = Scorer(folder, zoo, make_task(), {"validation": rows}, 1024)
    scorer.merge(zoo.theta[3])
    tokens = AutoTokenizer.from_pretrained(folder)(rows["text"].tolist(), padding=True, return_tensors="pt")
    with torch.inference_mode():
        ours, unmerged = scorer.model.cpu()(**tokens).logits, model(**tokens).logits
        with model.disable_adapter():
            plain = model(**tokens).logits
        merged = model.merge_and_unload()(**tokens).logits
    torch.testing.assert_close(ours, unmerged, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours, merged, rtol=1e-4, atol=1e-5)
    assert (unmerged - plain).abs().max() > 0.05  # the adapter does something
