"""Frozen text encoders of the condition: a sentence encoder (MiniLM) or CLIP's text tower."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from condpdiff.errors import UserError, nearest
from condpdiff.packages import extract_model
from condpdiff.params.condition import Condition

Encode = Callable[[list[str]], Tensor]
"""texts -> [V, d_cond] float32, each of length sqrt(d_cond): a standard deviation of 1 a coordinate."""

KEY = "params.yaml: condition.model"
BATCH = 64


def load_encoder(settings: Condition) -> Encode:
    """The encoder that `condition.encoder` and `condition.model` name.

    Raises:
        UserError: the model can't be had; says how to give it locally.
    """
    return {"minilm": _sentence_encoder, "clip": _clip}[settings.encoder](settings.model)


def _sentence_encoder(model: str) -> Encode:
    """Mean over the tokens of the last hidden states, as sentence-transformers' MiniLM."""
    source, _, name = model.partition(":")
    if source not in ("package", "hub", "local-dir") or not name:
        raise UserError(f"{KEY}: found {model!r}, allowed for minilm: package:NAME, hub:ID or local-dir:PATH")
    from huggingface_hub.utils.logging import set_verbosity_error
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_verbosity_error()  # the error below says it once; the hub's client, once a retry
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "10")
    with tempfile.TemporaryDirectory() as scratch:
        where = name
        if source == "package":
            where = str(extract_model(name, Path(scratch) / "model", KEY))
        elif source == "local-dir" and not (Path(name) / "config.json").is_file():
            raise UserError(f"{KEY}: found {model!r}, allowed: a directory with config.json, weights and tokenizer")
        try:
            network = AutoModel.from_pretrained(where).eval()
            tokenizer = AutoTokenizer.from_pretrained(where)
        except (OSError, ValueError, SafetensorError) as error:
            raise _unreachable(model, error, "local-dir:PATH") from None

    @torch.inference_mode()
    def encode(texts: list[str]) -> Tensor:
        found = []
        for i in range(0, len(texts), BATCH):
            tokens = tokenizer(texts[i : i + BATCH], padding=True, truncation=True, max_length=256, return_tensors="pt")
            hidden = network(**tokens).last_hidden_state  # [V, tokens, d]
            mask = tokens["attention_mask"][..., None]  # [V, tokens, 1]
            found.append((hidden * mask).sum(1) / mask.sum(1))
        return unit_variance(torch.cat(found))

    return encode


def _clip(model: str) -> Encode:
    """The text tower of an open_clip model: `ARCH/PRETRAINED` or `ARCH/local-dir:PATH`."""
    arch, _, pretrained = model.partition("/")
    if not pretrained:
        raise UserError(f"{KEY}: found {model!r}, allowed for clip: ARCH/PRETRAINED or ARCH/local-dir:PATH")
    import open_clip

    local = pretrained.startswith("local-dir:")
    folder = Path(pretrained.removeprefix("local-dir:"))
    if local and not folder.is_dir():
        raise UserError(f"{KEY}: found {pretrained!r}, allowed: an existing directory after local-dir:")
    if not local and arch not in open_clip.list_models():
        raise UserError(f"{KEY}: unknown CLIP architecture {arch!r}{nearest(arch, open_clip.list_models())}")
    try:
        if local:
            network = open_clip.create_model(f"local-dir:{folder}")
            tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        else:
            network = open_clip.create_model(arch, pretrained=pretrained)
            tokenizer = open_clip.get_tokenizer(arch)
    except Exception as error:  # open_clip passes on whatever its downloader raises
        raise _unreachable(model, error, f"{arch}/local-dir:PATH") from None
    network.eval()

    @torch.inference_mode()
    def encode(texts: list[str]) -> Tensor:
        parts = [network.encode_text(tokenizer(texts[i : i + BATCH])) for i in range(0, len(texts), BATCH)]
        return unit_variance(torch.cat(parts).float())

    return encode


def unit_variance(vectors: Tensor) -> Tensor:
    """Give each row [V, d] the length sqrt(d)."""
    return torch.nn.functional.normalize(vectors, dim=1) * vectors.shape[1] ** 0.5


def _unreachable(model: str, error: Exception, local: str) -> UserError:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(f"{KEY}: text encoder {model!r} can't be loaded ({first}); give it locally as {local}")
