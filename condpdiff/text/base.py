"""prepare-base: bring the pre-trained encoder and its tokenizer into one folder; everything after it runs offline."""

from pathlib import Path

from condpdiff.common.files import new_directory
from condpdiff.common.pretrained import load_pretrained, save_source
from condpdiff.common.task import Base


def prepare_base(base: Base, out: Path) -> None:
    """Write weights (float32), config and tokenizer of the base model to `out`.
    Raises UserError: the package, directory or hub id can't be had or holds no model; says how to give it locally."""
    locally = "download it on a machine that reaches the hub and set base: {source: local, name: DIRECTORY}"
    shown = f"base model {base.name!r} ({base.source})"
    model, tokenizer = load_pretrained(base.source, base.name, "params.yaml: base.name", shown, locally)
    with new_directory(out) as folder:
        # What a generated adapter names as its base: the hub's id where there is one, this folder otherwise.
        save_source(folder, base.source, base.name, base.name if base.source == "hub" else str(out))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
