"""Section `data`: how many rows prepare-data keeps."""

from pydantic import NonNegativeInt, PositiveInt

from condpdiff.params.section import Section


class Data(Section):
    max_train: PositiveInt
    """Training rows kept (a random subset; all rows if fewer), those held out among them."""
    held_out: NonNegativeInt = 0
    """Training rows of these that fine-tuning never sees: they rate checkpoints and select candidates."""
    max_validation: PositiveInt
    """Validation rows kept."""
    seed: int = 0
