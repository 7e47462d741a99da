"""Section `interpolate`: LoRAs between two tasks, and LoRAs under conditions that training never drew."""

from itertools import pairwise

from pydantic import Field, NonNegativeInt, PositiveInt

from condpdiff.params.section import Section


class Interpolate(Section):
    points: int = Field(ge=2)
    """Values of lambda, evenly spaced from 0 (the first task) to 1 (the second)."""
    pairs: NonNegativeInt
    """How many pairs of neighbouring tasks are looked at, from the first one of `tasks` on; all, if there are fewer."""
    samples: PositiveInt
    """LoRAs a point; those whose weights are interpolated are generated ones, so at most `sample.count`."""
    seed: int = Field(0, ge=0)

    @property
    def lambdas(self) -> list[float]:
        return [i / (self.points - 1) for i in range(self.points)]

    def pairs_of(self, tasks: list[str]) -> list[tuple[str, str]]:
        """The pairs of a run's tasks; none of a single task."""
        return list(pairwise(tasks))[: self.pairs]


def pair_folder(one: str, other: str) -> str:
    """Name of a pair's folder in `data/interpolation/`."""
    return f"{one}--{other}"
