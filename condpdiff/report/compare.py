"""Is a difference between two arms more than the luck of the validation rows? Paired bootstrap, and words for it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from condpdiff.report.tables import CONTROLS, Evaluation, Summary, candidates, pivot, selected

RESAMPLES = 2000
FEWEST = 3
"""Tasks of which an interval over tasks is given."""


@dataclass(frozen=True)
class Difference:
    """condpdiff minus another arm, with an interval: of 95 % in text tasks, of the candidates' spread in styles."""

    value: float
    low: float
    high: float
    """Both NaN where no interval is known."""
    lower: bool = False
    """A negative difference is the better one."""

    @property
    def word(self) -> str:
        """`ties` means that the interval holds 0: these rows can't tell the two apart."""
        above, below = ("loses to", "beats") if self.lower else ("beats", "loses to")
        return above if self.low > 0 else below if self.high < 0 else "ties with"

    def __str__(self) -> str:
        interval = "" if math.isnan(self.low) else f" [{signed(self.low)}, {signed(self.high)}]"
        return signed(self.value) + interval


@dataclass(frozen=True)
class Comparison:
    """condpdiff against one arm, for each task and for the mean over tasks."""

    arm: str
    rule: str
    """`selected`: the selected candidates; `mean`: the means over all candidates."""
    tasks: dict[str, Difference]
    average: Difference

    def count(self, word: str) -> int:
        return sum(d.word == word for d in self.tasks.values())


def signed(value: float) -> str:
    """Two decimals, always with a sign, and never `-0.00`."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def best_control(summary: Summary, lower: bool = False) -> str:
    """The control with the best average over tasks, picked with hindsight: the hardest one to beat."""
    picked = pivot(summary, "selected")
    return (min if lower else max)(CONTROLS, key=lambda arm: picked[arm]["average"])


def compare(evaluations: list[Evaluation], arm: str, rule: str, seed: int) -> Comparison:
    """Resample each task's validation rows RESAMPLES times; both arms are scored on the same resamples.

    The rule `mean` draws each arm's candidates anew too, or its interval would hold for these very draws alone. Task i
    draws rows from seed (seed, i), so every comparison of a report sees the same resamples of them.
    """
    tasks, draws, values = {}, [], []
    for i, e in enumerate(evaluations):
        v = len(e.labels)
        counts = np.random.default_rng([seed, i]).multinomial(v, np.full(v, 1 / v), size=RESAMPLES)  # [B, V]
        counts = np.concatenate([np.ones((1, v)), counts])  # row 0: the rows as they are
        scorer = METRICS[e.metric]
        ours, theirs = (
            _arm_scores(e, a, rule, scorer, counts, np.random.default_rng([seed, i, side]))
            for side, a in enumerate(("condpdiff", arm))
        )
        difference = ours - theirs  # [1 + B]
        tasks[e.name] = _interval(difference)
        draws.append(difference)
        values.append(difference[0])
    return Comparison(arm, rule, tasks, _interval(np.mean(draws, axis=0)))


def _arm_scores(
    e: Evaluation, arm: str, rule: str, scorer: "Scorer", counts: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Score of an arm on each resample: [1 + B]."""
    if rule == "selected":
        return scorer(e.predictions[selected(e.scores, arm)], e.labels, counts)
    each = np.stack([scorer(e.predictions[r], e.labels, counts) for r in candidates(e.scores, arm)])  # [C, 1 + B]
    drawn = rng.integers(len(each), size=(len(each), each.shape[1] - 1))
    return np.r_[each[:, 0].mean(), np.take_along_axis(each[:, 1:], drawn, axis=0).mean(0)]


def student(values: np.ndarray, lower: bool = False) -> Difference:
    """Mean of differences [n], and its interval of 95 % where others of their kind might have been drawn.

    Student's t: resampling so few would make it too narrow. Not known for fewer than FEWEST.
    """
    from scipy.stats import t  # half a second

    n, mean = len(values), float(np.mean(values))
    reach = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)) if n >= FEWEST else math.nan
    return Difference(mean, mean - reach, mean + reach, lower)


def _interval(difference: np.ndarray) -> Difference:
    low, high = np.percentile(difference[1:], [2.5, 97.5])
    return Difference(float(difference[0]), float(low), float(high))


# Metrics on resamples. A resample is how often each row is drawn, counts [B, V]; every metric is then a few
# matrix products, and one of all-ones counts is the plain metric. Percent; undefined correlations count as 0.

Scorer = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _confusion(p: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[B, true class, predicted class]."""
    p, y = p.astype(int), y.astype(int)
    c = max(p.max(), y.max()) + 1
    return (counts @ np.eye(c * c)[y * c + p]).reshape(-1, c, c)


def _accuracy(p: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return 100 * (counts @ (p == y)) / counts.sum(1)


def _f1(p: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Of class 1 for two classes (as GLUE), else the mean over classes."""
    m = _confusion(p, y, counts)
    hits = np.diagonal(m, axis1=1, axis2=2)
    each = 2 * hits / np.maximum(m.sum(1) + m.sum(2), 1)  # [B, classes]
    if m.shape[1] <= 2:
        return 100 * each[:, -1] if m.shape[1] == 2 else np.zeros(len(counts))
    seen = (m.sum(1) + m.sum(2)) > 0  # a class that a resample lacks has no F1
    return 100 * (each * seen).sum(1) / seen.sum(1)


def _matthews(p: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    m = _confusion(p, y, counts)
    n, hits, true, said = m.sum((1, 2)), np.trace(m, axis1=1, axis2=2), m.sum(2), m.sum(1)
    below = np.sqrt((n**2 - (said**2).sum(1)) * (n**2 - (true**2).sum(1)))
    return 100 * np.divide(hits * n - (true * said).sum(1), below, out=np.zeros(len(n)), where=below > 0)


def _pearson(p: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """p and y are [V], or [B, V] where they differ by resample."""
    weight = counts / counts.sum(1, keepdims=True)
    p = p - (weight * p).sum(1, keepdims=True)
    y = y - (weight * y).sum(1, keepdims=True)
    below = np.sqrt((weight * p**2).sum(1) * (weight * y**2).sum(1))
    return 100 * np.divide((weight * p * y).sum(1), below, out=np.zeros(len(weight)), where=below > 1e-12)


def _spearman(p: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return _pearson(_ranks(p, counts), _ranks(y, counts), counts)


def _ranks(x: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean ranks within each resample, [B, V]: a value drawn w times after c smaller ones has rank c + (w + 1) / 2."""
    order = np.argsort(x, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(x[order]) > 0])
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)  # [B, different values]
    ranks = np.cumsum(drawn, axis=1) - drawn + (drawn + 1) / 2
    return ranks[:, np.unique(x, return_inverse=True)[1]]


METRICS: dict[str, Scorer] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's, -1 to 1, over the pairs that have both; NaN below two of them, and where one never varies."""
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    if len(x) < 2 or not np.ptp(x) or not np.ptp(y):
        return math.nan
    return float(_spearman(x, y, np.ones((1, len(x))))[0]) / 100


def verdict(comparisons: dict[str, Comparison], summary: Summary, flags: dict[str, str]) -> list[str]:
    """The figures in words: the first sentence is the verdict, the others qualify it.

    Args:
        comparisons: `control`, `soup` and, where every candidate has a score, `original mean`.
    """
    picked, means = pivot(summary, "selected"), pivot(summary, "mean")
    control, soup, mean = comparisons["control"], comparisons["soup"], comparisons.get("original mean")
    n = len(control.tasks)
    over = f"Over the mean of {n} tasks" if n > 1 else f"On {next(iter(control.tasks))}"
    lines = [
        f"{over}, condpdiff ({picked['condpdiff']['average']:.2f}) **{control.average.word}** the best control, "
        f"{control.arm} ({picked[control.arm]['average']:.2f}): difference {_words(control.average)}."
    ]
    if control.arm != "soup":
        lines.append(f"It **{soup.average.word}** soup ({picked['soup']['average']:.2f}): {_words(soup.average)}.")
    if n > 1:
        lines.append(
            f"Task by task it beats {control.arm} on {control.count('beats')}, ties on {control.count('ties with')} "
            f"and loses on {control.count('loses to')} of {n}."
        )
    if mean is not None:
        lines.append(
            f"Mean against mean, a generated candidate ({means['condpdiff']['average']:.2f}) **{mean.average.word}** "
            f"a single checkpoint ({means['original']['average']:.2f}): {_words(mean.average)}."
        )
        if mean.average.word == "beats" and control.average.word != "beats":
            lines.append(
                f"Since {control.arm} is not measurably worse without a trained generator, "
                "that gain does not speak for one."
            )
    if flags:
        lines.append(
            f"{len(flags)} of {n} {'task was' if len(flags) == 1 else 'tasks were'} not learned "
            f"({', '.join(flags)}); the averages include {'it' if len(flags) == 1 else 'them'}."
        )
    return lines


def _words(d: Difference) -> str:
    return f"{signed(d.value)} points, 95 % interval {signed(d.low)} to {signed(d.high)}"
