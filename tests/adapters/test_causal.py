"""Adapters of causal language models come in, are a task's zoo, and go out, without a head."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from condpdiff.adapters.exporting import export
from condpdiff.adapters.importing import import_zoo
from condpdiff.adapters.place import place
from condpdiff.common.files import read_tensors
from condpdiff.common.task import SETTINGS, save_sections
from condpdiff.text.models import ATTENTION
from condpdiff.text.task import load_task
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.settings import Collect
from tests.adapters.conftest import save_run
from tests.adapters.stand_ins_adapters import ALPHA, BASE, RANK, randomise
from tests.stand_ins import make_task
from tests.stand_ins_architectures import CAUSAL, save_random

LANGUAGE = {
    "kind": "language",
    "columns": {"text": "text"},
    "source": {"type": "files", "train": "inputs/train.jsonl", "validation": "inputs/validation.jsonl"},
}


@pytest.mark.parametrize("model_type", CAUSAL)
def test_adapters_of_a_causal_language_model_are_a_zoo_and_leave_again(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_random(model_type, BASE, AutoModelForCausalLM)
    save_run("text", "poems", make_task(data=LANGUAGE, metrics=["log_likelihood"], finetune={"head_lr": 0.0}))
    targets = list(ATTENTION[model_type])
    settings = {"r": RANK, "lora_alpha": ALPHA, "target_modules": targets, "task_type": "CAUSAL_LM"}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE), LoraConfig(**settings))
    for i in (1, 2, 3):
        randomise(model, i).save_pretrained(f"mine/run-{i}")
    import_zoo(Path("mine"), "poems", False, print)

    task = Path("configs/tasks/poems.yaml")
    task.write_text(task.read_text() + "zoo: inputs/poems\n")
    save_sections(SETTINGS / "poems", "poems")
    collect = Collect(rank=RANK, alpha=ALPHA, max_checkpoints=3)
    place("poems", load_task("poems"), collect, BASE, Path("data/zoo/poems"))
    zoo = load_zoo(Path("data/zoo/poems"))
    assert zoo.theta.shape[0] == 3 and not zoo.head and zoo.config["task_type"] == "CAUSAL_LM"

    export("checkpoint:poems/3", Path("out"), "peft", None, 0.5)
    own, again = (read_tensors(Path(folder) / "adapter_model.safetensors") for folder in ("mine/run-3", "out"))
    assert own.keys() == again.keys() and all(torch.equal(own[key], again[key]) for key in own)
    export("checkpoint:poems/3", Path("merged"), "merged", None, 0.5)
    ids = torch.tensor([[2, 5, 9, 3]])
    with torch.inference_mode():
        merged = AutoModelForCausalLM.from_pretrained("merged").eval()(ids).logits
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), "mine/run-3").eval()(ids).logits
    torch.testing.assert_close(merged, adapted, atol=1e-4, rtol=1e-4)
