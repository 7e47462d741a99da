"""Differences between arms with their intervals, and the words for them."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

WORDS = ("beats", "ties with", "loses to")
FEWEST = 5  # tasks of which an interval over tasks is given


@dataclass(frozen=True)
class Difference:
    """condpdiff minus another arm, with an interval."""

    value: float
    low: float
    high: float  # both NaN where no interval is known

    @property
    def word(self) -> str:
        """`ties` means that the interval holds 0: these rows can't tell the two apart."""
        beats, ties, loses = WORDS
        return beats if self.low > 0 else loses if self.high < 0 else ties

    @property
    def known(self) -> bool:
        """It has an interval."""
        return not math.isnan(self.low)

    def __str__(self) -> str:
        return signed(self.value) + (f" [{signed(self.low)}, {signed(self.high)}]" if self.known else "")


@dataclass(frozen=True)
class Comparison:
    """condpdiff against one arm, for each task and for the mean over tasks."""

    arm: str
    tasks: dict[str, Difference]
    average: Difference


def number(value: float, decimals: int = 2, sign: str = "") -> str:
    """A dash for what is not known, and never `-0.00`; `sign="+"` shows a plus too."""
    return "–" if math.isnan(value) else f"{round(float(value), decimals) + 0.0:{sign}.{decimals}f}".replace("-", "−")


def signed(value: float) -> str:
    """Two decimals, always with a sign."""
    return number(value, sign="+")


def student(values: np.ndarray) -> Difference:
    """Mean of differences [n], and its interval of 95 % where others of their kind might have been drawn.

    Student's t: resampling so few would make it too narrow. Not known for fewer than FEWEST.
    """
    from scipy.stats import t  # half a second

    n, mean = len(values), float(np.mean(values))
    reach = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)) if n >= FEWEST else math.nan
    return Difference(mean, mean - reach, mean + reach)


def correlation(x: np.ndarray | pd.Series, y: np.ndarray | pd.Series) -> float:
    """Spearman's, -1 to 1, over the pairs that have both; NaN below two of them, and where one never varies."""
    return float(pd.DataFrame({"x": x, "y": y}).corr("spearman", min_periods=2).to_numpy()[0, 1])
