"""Is a difference between two Fréchet distances more than the spread of candidates? And words for it."""

import math

import numpy as np

from condpdiff.report.compare import Comparison, Difference, signed
from condpdiff.report.tables import ArmScore, Summary, pivot


def compare(summary: Summary, arm: str) -> Comparison:
    """Selected candidates of condpdiff and `arm`: the difference, and round it the spread of candidates.

    The spread is the larger of the two arms' standard deviations over candidates; for the mean over styles it is the
    mean of theirs. It is not known where neither arm has several scored candidates: then nothing is told apart.
    """
    cells = {(s.task, s.arm): s for s in summary}
    styles = list(dict.fromkeys(s.task for s in summary))
    pairs = {style: (cells[style, "condpdiff"], cells[style, arm]) for style in styles}
    values = {style: ours.selected - theirs.selected for style, (ours, theirs) in pairs.items()}
    spreads = {style: _spread(*pair) for style, pair in pairs.items()}
    each = {style: _difference(values[style], spreads[style]) for style in styles}
    mean = _difference(float(np.mean(list(values.values()))), float(np.mean(list(spreads.values()))))
    return Comparison(arm, "selected", each, mean)


def _spread(*arms: ArmScore) -> float:
    return float(np.max([s.std for s in arms if s.candidates > 1] or [math.nan]))  # in racing std is NaN


def _difference(value: float, spread: float) -> Difference:
    return Difference(value, value - spread, value + spread, lower=True)


def verdict(
    comparisons: dict[str, Comparison], summary: Summary, flags: dict[str, str], label: str, noun: str
) -> list[str]:
    """The figures in words: the first sentence is the verdict, the others qualify it.

    Args:
        comparisons: `control`, `original` and `soup`.
        label: what the Fréchet distance is called.
        noun: what the styles are called, in the plural.
    """
    picked = {arm: row["average"] for arm, row in pivot(summary, "selected").items()}
    control, original, soup = (comparisons[k] for k in ("control", "original", "soup"))
    n = len(control.tasks)
    over = f"Over the mean of {n} {noun}" if n > 1 else f"On {next(iter(control.tasks))}"
    lines = [
        f"{over}, condpdiff ({label} {picked['condpdiff']:.2f}; lower is better) **{control.average.word}** the best "
        f"control, {control.arm} ({picked[control.arm]:.2f}): {_words(control.average)}.",
        f"It **{original.average.word}** original, the selected checkpoint ({picked['original']:.2f}): "
        f"{_words(original.average)}.",
    ]
    if control.arm != "soup":
        lines.append(f"It **{soup.average.word}** soup ({picked['soup']:.2f}): {_words(soup.average)}.")
    lines.append(
        f"The floor of so few images is {picked['floor']:.2f} (real images against real ones); without a LoRA the base "
        f"model is at {picked['no_lora']:.2f}."
    )
    if n > 1:
        lines.append(
            f"Style by style it beats {control.arm} on {control.count('beats')}, ties on {control.count('ties with')} "
            f"and loses on {control.count('loses to')} of {n}."
        )
    lines.append(_range(summary))
    if flags:
        lines.append(
            f"{len(flags)} of {n} {'style was' if len(flags) == 1 else 'styles were'} not learned "
            f"({', '.join(flags)}); the averages include {'it' if len(flags) == 1 else 'them'}."
        )
    return lines


def _words(d: Difference) -> str:
    spread = (d.high - d.low) / 2
    known = "the spread of candidates is not known" if math.isnan(spread) else f"spread of candidates {spread:.2f}"
    return f"difference {signed(d.value)}, {known}"


def _range(summary: Summary) -> str:
    fields = {f: pivot(summary, f)["condpdiff"]["average"] for f in ("mean", "std", "best", "worst")}
    if math.isnan(fields["std"]):
        return "No interval is given: candidates' distances are single figures, and images were not resampled."
    return (
        f"condpdiff's candidates have mean {fields['mean']:.2f}, standard deviation {fields['std']:.2f} and range "
        f"{fields['best']:.2f} to {fields['worst']:.2f}; images were not resampled, so these are no confidence "
        "intervals."
    )
