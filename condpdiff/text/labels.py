"""What the labels of a task's rows mean: class names or numbers of classes -> indices, ratings -> targets."""

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from condpdiff.common.errors import UserError, nearest
from condpdiff.common.tables import KEYS, is_missing, shown
from condpdiff.text.sources import Rows, column
from condpdiff.text.task import FilesSource, TaskData

TRUTH = {"true": "1", "false": "0", "1": "true", "0": "false"}  # a truth value as other formats write it


def read_labels(data: TaskData, rows: dict[str, Rows], where: str) -> dict[str, np.ndarray]:
    """Labels as float64 `[rows]` for each split; NaN for a rating that `binarize` drops.
    Args: rows: of train, and of validation if there are any; where: the task's file, for errors.
    Raises UserError: a label is missing, unknown, outside of what is allowed, or could mean two classes.
    """
    assert data.columns.label is not None  # TaskData asks for it
    key = f"{where}: data.columns.label {data.columns.label!r}"
    raw = {split: column(each, data.columns.label, "columns.label", where) for split, each in rows.items()}
    for split, values in raw.items():
        missing = [number for number, value in enumerate(values) if is_missing(value) or str(value).strip() == ""]
        if missing:
            found = f"{len(missing)} of {len(values)} labels are missing (first: {rows[split].place(missing[0])})"
            raise UserError(f"{key}: {found}; allowed: a label in every row")
    if data.labels and data.binarize is None:
        return _class_indices(raw, data.labels, data.indices, key, rows)
    decimal = data.source.decimal if isinstance(data.source, FilesSource) else "."
    numbers = {split: _numbers(values, decimal, key, rows[split]) for split, values in raw.items()}
    if (cut := data.binarize) is not None:  # class 0 below, class 1 above, NaN between
        return {split: np.select([x < cut.below, x > cut.above], [0.0, 1.0], np.nan) for split, x in numbers.items()}
    assert data.range is not None  # TaskData asks for it with regression
    low, high = data.range
    for split, targets in numbers.items():
        outside = np.flatnonzero((targets < low) | (targets > high))
        if len(outside):
            found = f"found {targets[outside[0]]:g} in {rows[split].place(int(outside[0]))}"
            allowed = f"{low:g} to {high:g} (data.range); {len(outside)} rows are outside"
            raise UserError(f"{key}: {found}, allowed: {allowed}")
    return numbers


def _numbers(values: list[Any], decimal: str, key: str, rows: Rows) -> np.ndarray:
    numbers = np.array([_number(value, decimal) for value in values], dtype=np.float64)
    for row in np.flatnonzero(~np.isfinite(numbers)):
        value = values[row]
        comma = isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d*,\d+\s*", value) and decimal == "."
        hint = f", or {KEYS}decimal: ','" if comma else ""
        found = repr(value) if isinstance(value, str) else shown(value)
        raise UserError(f"{key}: found {found} in {rows.place(int(row))}, allowed: a finite number{hint}")
    return numbers


def _number(value: Any, decimal: str) -> float:
    if isinstance(value, bool | np.bool_):
        return math.nan
    if isinstance(value, str) and ("_" in value or (decimal == "," and "." in value)):  # 1_0; thousands, as 1.234,5
        return math.nan
    try:
        return float(value.replace(decimal, ".") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return math.nan


def _class_indices(
    raw: dict[str, list[Any]], labels: list[str], start: int | None, key: str, rows: dict[str, Rows]
) -> dict[str, np.ndarray]:
    """Class names, or numbers of classes from `start`, -> indices; both splits are read in one way.

    Names come first. Numbers are read as indices where the task or the source says so, or where no class is missing.
    """
    words = {split: [_word(value) for value in values] for split, values in raw.items()}

    def looked_up(table: dict[str, float], allowed: str, like: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """What a table says of every word; the first that it lacks is an error."""
        for split, values in words.items():
            for row, word in enumerate(values):
                if word not in table:
                    place = rows[split].place(row) + nearest(word, like)
                    raise UserError(f"{key}: found {word!r} in {place}; allowed: {allowed}")
        return {split: np.array([table[word] for word in values]) for split, values in words.items()}

    by_name = {_word(label): float(index) for index, label in enumerate(labels)}
    if len(by_name) < len(labels):
        raise UserError(f"{key}: found data.labels {', '.join(labels)}, allowed: names that differ as rows write them")
    if by_name.keys() in ({"true", "false"}, {"0", "1"}):
        by_name |= {TRUTH[word]: index for word, index in by_name.items()}
    found, where, count = {word for values in words.values() for word in values}, rows["train"].where, len(labels)
    first = start if start is not None else rows["train"].indices or 0
    by_index = {str(first + index): float(index) for index in range(count)}
    numbered, truths = all(re.fullmatch(r"-?\d+", word) for word in found), found <= {"true", "false"}
    if start is not None and (numbered or truths):
        if truths:
            words = {split: [TRUTH[word] for word in values] for split, values in words.items()}
        return looked_up(by_index, f"{first} to {first + count - 1} (data.indices: {first})")
    if found <= by_name.keys():
        return looked_up(by_name, "")
    span = f"0 to {count - 1}"
    allowed = f"{', '.join(labels)}, or their indices {span}"
    if numbered:
        one = found <= {str(index + 1) for index in range(count)}
        read = looked_up(by_index, f"{allowed}{'; or data.indices: 1 if they start at 1' * one}")
        if (there := set(words["train"])) < by_index.keys() and rows["train"].indices is None:
            told = f"found indices {', '.join(sorted(there, key=int))} in {where}"
            starts = f"data.indices: {'0 or 1' if one else '0'}, where they start"
            raise UserError(f"{key}: {told}, allowed: all of {span}, or {starts}, or data.labels as rows write them")
        return read
    if truths:
        meant = f"data.indices: 0, if false is {labels[0]!r} and true is {labels[1]!r}"
        raise UserError(f"{key}: found true and false in {where}, allowed: {', '.join(labels)}; or {meant}")
    looked_up(by_name | by_index, allowed, labels)
    told = f"found names and indices mixed ({', '.join(sorted(found))})"
    raise UserError(f"{key}: {told}; allowed: {allowed}, throughout")


def _word(value: Any) -> str:
    """A label as it is written: 1, 1.0, "+1" and " 1 " are all "1", True is "true", bytes are UTF-8."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    text = unicodedata.normalize("NFC", text.strip())
    if text.lower() in ("true", "false"):
        return text.lower()
    number = re.fullmatch(r"\+?(-?\d+)(\.0*)?", text)
    return number[1] if number else text
