"""Section `performance`: the loss by which a checkpoint is told to be good or bad."""

from pydantic import PositiveInt

from condpdiff.params.section import Section


class Performance(Section):
    rows: PositiveInt
    """Held-out training rows that every checkpoint's loss is the mean over."""
