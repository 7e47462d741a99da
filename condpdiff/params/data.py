"""Section `data`: how many rows prepare-data keeps."""

from pydantic import PositiveInt

from condpdiff.params.section import Section


class Data(Section):
    max_train: PositiveInt
    """Training rows kept (a random subset; all rows if fewer)."""
    max_validation: PositiveInt
    """Validation rows kept."""
    seed: int = 0
