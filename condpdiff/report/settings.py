"""Section `report`: what the report shows."""

from pydantic import Field, PositiveFloat

from condpdiff.common.settings import Section


class Report(Section):
    perplexity: PositiveFloat
    """Of the t-SNE figures."""
    learned_margin: float = Field(ge=0)
    """Below it a task is flagged as not learned. Text: points by which the selected checkpoint must beat both a
    constant and no LoRA. Styles: percent of the way from no LoRA to the floor that it must have gone."""
    seed: int = Field(0, ge=0)
