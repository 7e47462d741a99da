"""Random stand-ins of every kind of base model; nothing here was trained on anything."""

from pathlib import Path
from typing import Any

from transformers import AutoModel

from tests.stand_ins import VOCABULARY, save_model

_SMALL = {"vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_SMALL |= {"intermediate_size": 32, "max_position_embeddings": 66, "pad_token_id": 0}
_DECODER = {**_SMALL, "num_key_value_heads": 1, "bos_token_id": 2, "eos_token_id": 3}
MODELS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "bert": (_SMALL, ["classifier"]),
    "roberta": (_SMALL, ["classifier"]),
    "deberta": (_SMALL | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, ["pooler", "classifier"]),
    "deberta-v2": (_SMALL | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, ["pooler", "classifier"]),
    "electra": (_SMALL | {"embedding_size": 16}, ["classifier"]),
    "distilbert": (
        {"vocab_size": len(VOCABULARY), "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "pad_token_id": 0},
        ["pre_classifier", "classifier"],
    ),
    "albert": (_SMALL | {"embedding_size": 8}, ["classifier"]),
    "mpnet": (_SMALL, ["classifier"]),
    "xlnet": (
        {"vocab_size": len(VOCABULARY), "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32, "pad_token_id": 0},
        ["sequence_summary", "logits_proj"],
    ),
    "modernbert": (_SMALL | {"cls_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "bos_token_id": 2,
                             "reference_compile": False}, ["head", "classifier"]),
    "gpt2": (
        {"vocab_size": len(VOCABULARY), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 66, "eos_token_id": 3},
        ["score"],
    ),
    "llama": (_DECODER, ["score"]),
    "qwen2": (_DECODER, ["score"]),
}  # fmt: skip
CAUSAL = ("gpt2", "llama", "qwen2")


def save_random(model_type: str, folder: Path, auto: Any = AutoModel) -> Path:
    return save_model(model_type, MODELS[model_type][0], folder, auto)
