"""Section `base`: the pre-trained model that every LoRA is merged into."""

from typing import Literal

from condpdiff.params.section import Section


class Base(Section):
    source: Literal["package", "trained", "hub", "local"]
    """`package`: out of a Python package (text); `trained`: trained here, on photographs that packages ship (style);
    `hub`: a Hugging Face id; `local`: a directory."""
    name: str
    """The package's name, the file of configs/models/ that says what is trained, the hub's id, or the directory."""
    inception: str | None = None
    """Where the network of the metric `fid` comes from: `download` (clean-fid's address), or a file's path (style)."""
