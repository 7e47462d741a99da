"""Pre-trained models: where one is (a Python package, the hub, a directory), how it is loaded, and what came of it.

`data/base/source.json`: where the base model came from, and what a generated adapter names as its base.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from condpdiff.common.errors import UserError, first_line
from condpdiff.common.files import read_json, write_json
from condpdiff.common.packages import extract_model

SOURCE = "source.json"


def load_pretrained(source: str, name: str, key: str, shown: str, locally: str) -> tuple[Any, Any]:
    """An encoder (float32, in evaluation mode) and its tokenizer; a UserError if it can't be had or holds no model.
    Args: source: `package` (of packages.py), `hub` or `local`; for errors `key` (the file's and its own name), `shown`
        (what the model is called there) and `locally` (how to give it without the hub).
    """
    from safetensors import SafetensorError

    if source == "local" and not (Path(name) / "config.json").is_file():
        raise UserError(f"{key}: found {name!r}, allowed: a directory with config.json, weights and tokenizer")
    with tempfile.TemporaryDirectory() as scratch:
        where = str(extract_model(name, Path(scratch, "model"), key)) if source == "package" else name
        try:
            return _load(where)
        except (OSError, ValueError, SafetensorError) as error:
            raise cannot_load(key, shown, error, locally) from None


def cannot_load(key: str, shown: str, error: Exception, locally: str) -> UserError:
    """The one line for a model that is named well and can't be had: the error's first line, and the local way."""
    return UserError(f"{key}: {shown} can't be loaded ({first_line(error)}); {locally}")


def _load(where: str) -> tuple[Any, Any]:
    import torch
    from huggingface_hub.utils.logging import set_verbosity_error
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()  # a second's work
    set_verbosity_error()  # the error of `load_pretrained` says it once; the hub's client, once a retry
    torch.manual_seed(0)  # of what the published weights lack, as roberta-base its pooler: the same bytes each time
    safe: dict[str, Any] = {"trust_remote_code": False}  # where nothing is said, it asks in a terminal
    (kind,) = AutoConfig.from_pretrained(where, **safe).architectures or ("",)
    # A causal language model's last layer is needed for language, and not always tied to the first.
    auto = AutoModelForCausalLM if kind.endswith(("ForCausalLM", "LMHeadModel")) else AutoModel
    model = auto.from_pretrained(where, dtype=torch.float32, use_safetensors=True).eval()
    return model, AutoTokenizer.from_pretrained(where)


def save_source(folder: Path, source: str, name: str, loads_as: str) -> None:
    """Write where the model of `folder` came from, and what `from_pretrained` takes for it."""
    write_json(folder / SOURCE, {"source": source, "name": name, "load": loads_as})


def loads_as(folder: Path) -> str:
    """What `from_pretrained` takes for the model of `folder`: the hub's id where there is one, the folder otherwise."""
    return str(read_json(folder / SOURCE)["load"])


def weights_digest(base: Path) -> str:
    """SHA-256 of a base model's weights: of a pipeline, its transformer's."""
    digest = hashlib.sha256()
    inside = base / "transformer" if (base / "transformer").is_dir() else base
    for path in sorted(inside.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
