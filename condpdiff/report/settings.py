"""Section `report`: what the report shows."""

from pydantic import Field, PositiveFloat

from condpdiff.common.settings import Section


class Report(Section):
    perplexity: PositiveFloat  # of the t-SNE figures
    learned_margin: float = Field(ge=0)
    """Points by which a task's selected checkpoint must beat both a constant and no LoRA, or it is flagged as not
    learned."""
    seed: int = Field(0, ge=0)
