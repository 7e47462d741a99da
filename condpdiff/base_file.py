"""`data/base/source.json`: where the base model came from, and what a generated adapter names as its base."""

from pathlib import Path

from condpdiff.files import read_json, write_json

SOURCE = "source.json"


def save_source(folder: Path, source: str, name: str, loads_as: str) -> None:
    """Write where the model of `folder` came from, and what `from_pretrained` takes for it."""
    write_json(folder / SOURCE, {"source": source, "name": name, "load": loads_as})


def loads_as(folder: Path) -> str:
    """What `from_pretrained` takes for the model of `folder`: the hub's id where there is one, the folder otherwise."""
    return str(read_json(folder / SOURCE)["load"])
