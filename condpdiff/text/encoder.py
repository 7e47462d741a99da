"""Frozen text encoders of the condition: a sentence encoder (MiniLM) or CLIP's text tower."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from condpdiff.common.errors import UserError, nearest
from condpdiff.common.pretrained import cannot_load, load_pretrained
from condpdiff.diffusion.conditions import unit_variance
from condpdiff.diffusion.settings import Condition
from condpdiff.text.conditions import fit

Encode = Callable[[Sequence[str]], Tensor]
"""texts -> [V, d_cond] float32, each of length sqrt(d_cond): a standard deviation of 1 a coordinate."""

KEY, LOCALLY = "params.yaml: condition.model", "give it locally as local-dir:PATH"
BATCH, TOKENS = 64, 256  # texts of a forward pass, and what the sentence encoder reads of one
LONG = 4096  # more tokens than a condition has


def load_encoder(settings: Condition) -> Encode:
    """The encoder that `condition.encoder` and `condition.model` name; a UserError says how to give it locally."""
    return {"minilm": _sentence_encoder, "clip": _clip}[settings.encoder](settings.model)


def weights(_: Condition) -> float:
    """How much each of an encoder's numbers counts beside the others: all alike."""
    return 1.0


def _sentence_encoder(model: str) -> Encode:
    """Mean over the tokens of the last hidden states, as sentence-transformers' MiniLM."""
    source, _, name = model.partition(":")
    if source not in ("package", "hub", "local-dir") or not name:
        raise UserError(f"{KEY}: found {model!r}, allowed for minilm: package:NAME, hub:ID or local-dir:PATH")
    network, tokenizer = load_pretrained(source.removesuffix("-dir"), name, KEY, f"text encoder {model!r}", LOCALLY)

    def length(text: str) -> int:
        return len(tokenizer.tokenize(text)) + tokenizer.num_special_tokens_to_add()

    def mean(texts: list[str]) -> Tensor:
        batch = tokenizer(texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
        hidden = network(**batch).last_hidden_state  # [V, tokens, d]
        mask = batch["attention_mask"][..., None]  # [V, tokens, 1]
        return (hidden * mask).sum(1) / mask.sum(1)

    return lambda texts: _in_batches(mean, _fitted(texts, length, TOKENS, model))


def _clip(model: str) -> Encode:
    """The text tower of an open_clip model: `ARCH/PRETRAINED`, or `local-dir:PATH`, which holds its architecture."""
    arch, _, pretrained = model.partition("/")
    is_local = model.startswith("local-dir:")
    if not is_local and (not pretrained or pretrained.startswith("local-dir:")):
        raise UserError(f"{KEY}: found {model!r}, allowed for clip: ARCH/PRETRAINED or local-dir:PATH")
    import open_clip

    if is_local and not Path(model.removeprefix("local-dir:")).is_dir():
        raise UserError(f"{KEY}: found {model!r}, allowed: an existing directory after local-dir:")
    if not is_local and arch not in open_clip.list_models():
        raise UserError(f"{KEY}: unknown CLIP architecture {arch!r}{nearest(arch, open_clip.list_models())}")
    name, weights = (model, None) if is_local else (arch, pretrained)
    try:
        network, tokenizer = open_clip.create_model(name, pretrained=weights), open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip passes on whatever its downloader raises
        raise cannot_load(KEY, f"text encoder {model!r}", error, LOCALLY) from None
    network.eval()

    def length(text: str) -> int:
        tokens = tokenizer(text, context_length=LONG)[0]  # filled up with one that a text may hold too
        return int((tokens != tokens[-1]).nonzero().max()) + 1

    def encode(texts: list[str]) -> Tensor:
        return network.encode_text(tokenizer(texts)).float()

    return lambda texts: _in_batches(encode, _fitted(texts, length, tokenizer.context_length, model))


def _fitted(texts: Sequence[str], length: Callable[[str], int], most: int, model: str) -> list[str]:
    """The texts with examples shortened where a network that reads `most` tokens would not come to their end."""
    found = [fit(text, length, most) for text in texts]
    if changed := [other for one, other in zip(texts, found, strict=True) if one != other]:
        says = f"shortened the examples of {len(changed)} of {len(texts)} conditions, and no label"
        print(f"{says}: {model} reads {most} tokens", file=sys.stderr)
        if over := sum(length(text) > most for text in changed):
            print(f"warning: {over} of them are cut still: shorten the task's description", file=sys.stderr)
    return found


@torch.inference_mode()
def _in_batches(encode: Callable[[list[str]], Tensor], texts: list[str]) -> Tensor:
    return unit_variance(torch.cat([encode(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)]))
