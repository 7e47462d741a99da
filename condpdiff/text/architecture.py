"""What `condpdiff describe` tells of text: the encoder's numbers by its configuration, and where a task's rows are."""

from collections.abc import Mapping
from typing import Any

from condpdiff.text.families.wordnet import PACKAGE
from condpdiff.text.task import HubSource, PackageSource, Task, WordnetSource


def architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """A base model by its configuration: what K, disk, memory and time are worked out from.

    Without torch, whose import takes seconds, for the families of the presets; a model without memory for its weights
    is counted for others.

    Returns:
        shape, in a few words; linears: name -> (out, in) of the linear modules; auto: suffixes of those that get a LoRA
        by `collect.target_modules: auto`; parameters, without the head; head, with two outputs; layers, hidden, heads;
        tokens a row (None: the rows decide); activations: values that a layer holds of a token and hidden unit.
    """
    kind, h, layers = config["model_type"], config["hidden_size"], config["num_hidden_layers"]
    found = {
        "shape": f"{kind}, {layers} layers, hidden {h}",
        "layers": layers,
        "hidden": h,
        "heads": config["num_attention_heads"],
        "tokens": None,
        "activations": 34,
    }
    if kind not in ("bert", "roberta", "deberta"):
        return found | _counted(dict(config))
    wide, bert, deberta = config["intermediate_size"], kind == "bert", kind == "deberta"
    attention = "attention.self"
    projections = {f"{attention}.{name}": (h, h) for name in ("query", "key", "value")}
    if deberta:
        projections = {f"{attention}.in_proj": (3 * h, h)}
        projections |= {f"{attention}.{name}": (h, h) for name in ("pos_proj", "pos_q_proj")}
    rest = {"attention.output.dense": (h, h), "intermediate.dense": (wide, h), "output.dense": (h, wide)}
    layer = projections | rest
    positions = config["max_position_embeddings"]  # DeBERTa's lie between its layers, on either side of a token
    tables = config["vocab_size"] + config["type_vocab_size"] + (2 if deberta else 1) * positions
    weights = sum(out * width for out, width in layer.values())
    norms_and_biases = 3 * h + h + wide + h + 2 * 2 * h
    pooler, labels = h * h + h, 2 * h + 2
    linears = {f"encoder.layer.{i}.{name}": shape for i in range(layers) for name, shape in layer.items()}
    return found | {
        "linears": linears | ({"pooler.dense": (h, h)} if bert else {}),
        "auto": [*projections, "attention.output.dense"],
        "parameters": tables * h + 2 * h + layers * (weights + norms_and_biases) + (pooler if bert else 0),
        "head": labels if bert else pooler + labels,
    }


def source(task: Task) -> tuple[str, list[tuple[str, str]]]:
    """Where a task's rows come from, in words, and what must be there for it: (package | dataset | file, name)."""
    found = task.data.source
    if isinstance(found, PackageSource):
        return f"package {found.package}", [("package", found.package)]
    if isinstance(found, HubSource):
        config = f" ({found.config})" if found.config else ""
        return f"hub {found.dataset}{config}", [("dataset", found.dataset)]
    if isinstance(found, WordnetSource):
        return f"WordNet's nouns, {found.tier} (package {PACKAGE})", [("package", PACKAGE)]
    return f"files {found.train}, {found.validation}", [("file", found.train), ("file", found.validation)]


def _counted(config: dict[str, Any]) -> dict[str, Any]:
    """The same of a model without memory for its weights."""
    import torch
    from torch import nn
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    from condpdiff.text.models import target_modules

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**config))
        bare = AutoModel.from_config(AutoConfig.for_model(**config))
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    head = sum(sizes.values()) - sum(parameter.numel() for parameter in bare.parameters())
    linears = {name: tuple(m.weight.shape) for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    auto = target_modules(config["model_type"], "auto")
    return {"linears": linears, "auto": auto, "parameters": sum(sizes.values()) - head, "head": head}
