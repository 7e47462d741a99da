"""Section `report`: what the report shows."""

from pydantic import Field, PositiveFloat

from condpdiff.params.section import Section


class Report(Section):
    perplexity: PositiveFloat
    """Of the t-SNE figures."""
    learned_margin: float = Field(ge=0)
    """Points by which the best original must beat both the constant and no-LoRA, or the task is flagged."""
    seed: int = Field(0, ge=0)
