"""Section `base`: the pre-trained model that every LoRA is merged into."""

from typing import Literal

from condpdiff.params.section import Section


class Base(Section):
    source: Literal["package", "hub", "local", "trained"]
    """`package`: out of a Python package; `hub`: a Hugging Face id; `local`: a directory; `trained`
    (style domain): a small one, trained in prepare-base."""
    name: str
    """The package's name, the hub's id or the directory's path; `trained`: the file of configs/models/ to train by."""
