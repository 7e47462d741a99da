"""A task's rows, made ready: columns `text`, `text_pair`, `label`, splits `train`, `held_out` and `validation`."""

import html
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError, nearest
from condpdiff.common.files import new_directory, write_json
from condpdiff.common.task import TASKS, Data
from condpdiff.text.conditions import DESCRIPTION, describe
from condpdiff.text.sources import Rows, read_source
from condpdiff.text.task import Binarize, PackageSource, Task, TaskData

SPLITS = ("train", "validation")


def prepare_data(name: str, task: Task, limits: Data, out: Path) -> None:
    """Write a task's splits as parquet files, and its description, to `out`.

    Raises:
        UserError: as `prepare`.
    """
    frames = prepare(task.data, name, limits)
    with new_directory(out) as folder:
        for split, frame in frames.items():
            frame.to_parquet(folder / f"{split}.parquet", index=False)
        write_json(folder / DESCRIPTION, describe(task, frames["train"]))
    print(f"{name}: " + ", ".join(f"{split} {label_summary(task.data, frame)}" for split, frame in frames.items()))


def prepare(data: TaskData, name: str, limits: Data) -> dict[str, pd.DataFrame]:
    """Read, clean, label and subsample the rows of a task; the same input gives the same rows in the same order.

    Returns:
        `train`, `held_out` (training rows set aside, in random order) and `validation`, each with columns
        `text` (str), `text_pair` (str, "" when the task has none) and `label` (float64: the class index, or the
        regression target).

    Raises:
        UserError: the source or its content is wrong; names the file or key, what was found, what is allowed.
    """
    where = f"{TASKS / name}.yaml"
    rows = read_source(data, where)
    texts = {split: _texts(data, rows[split], where) for split in SPLITS}
    labels = _labels(data, rows, where)
    frames = {split: texts[split].assign(label=labels[split]) for split in SPLITS}

    empty = {split: _is_empty(data, frame) for split, frame in frames.items()}
    between = {split: frame["label"].isna() for split, frame in frames.items()}  # NaN: `binarize` drops the row
    frames = {split: frame[~(empty[split] | between[split])] for split, frame in frames.items()}
    in_both = _keys(frames["train"]).isin(_keys(frames["validation"]))
    frames["train"] = frames["train"][~in_both]
    counts = {
        "without text": int(sum(mask.sum() for mask in empty.values())),
        "between the two classes": int(sum(mask.sum() for mask in between.values())),
        "of train whose text is also in validation": int(in_both.sum()),
    }
    dropped = [f"{count} row{'s' * (count > 1)} {reason}" for reason, count in counts.items() if count]
    if dropped:
        print(f"{name}: dropped {', '.join(dropped)}", file=sys.stderr)

    most = {"train": limits.max_train, "validation": limits.max_validation}
    frames = {
        split: _subsample(frames[split], most[split], np.random.default_rng([limits.seed, index]))
        for index, split in enumerate(SPLITS)
    }
    for split in SPLITS:
        _check_split(data, frames[split], rows[split].where, f"params.yaml: data.max_{split}", most[split])
    if limits.held_out:
        frames |= _hold_out(data, frames["train"], limits, rows["train"].where)
    return frames


def label_summary(data: TaskData, frame: pd.DataFrame) -> str:
    """One short phrase: the number of rows and how the labels are distributed."""
    label = frame["label"]
    if data.labels:
        shares = ", ".join(f"{name} {int((label == index).sum())}" for index, name in enumerate(data.labels))
    else:
        shares = f"{label.min():.2f} to {label.max():.2f}, mean {label.mean():.2f}, std {label.std():.2f}"
    return f"{len(frame)} rows ({shares})"


def _column(rows: Rows, column: str, key: str, where: str) -> list[Any]:
    if column not in rows.frame:
        found = [str(c) for c in rows.frame.columns]
        raise UserError(
            f"{where}: data.columns.{key}: no column {column!r} in {rows.where}{nearest(column, found)}; "
            f"allowed: {', '.join(found)}"
        )
    values = rows.frame[column]
    if isinstance(values, pd.DataFrame):
        raise UserError(f"{where}: data.columns.{key}: {rows.where} has {values.shape[1]} columns named {column!r}")
    return values.tolist()


def _texts(data: TaskData, rows: Rows, where: str) -> pd.DataFrame:
    """Clean `text` and `text_pair`; "" where there is none."""
    scraped = isinstance(data.source, PackageSource)
    text = [_clean(value, scraped) for value in _column(rows, data.columns.text, "text", where)]
    pair = [""] * len(text)
    if data.columns.text_pair is not None:
        pair = [_clean(value, scraped) for value in _column(rows, data.columns.text_pair, "text_pair", where)]
    return pd.DataFrame({"text": pd.Series(text, dtype=str), "text_pair": pd.Series(pair, dtype=str)})


def _clean(value: Any, scraped: bool) -> str:
    """One line of text, single spaces; scraped text also loses HTML entities and undecodable characters."""
    if _is_missing(value):
        return ""
    text = str(value)
    if scraped:
        text = html.unescape(html.unescape(text)).replace("\ufffd", "")  # twice: NYT has `&amp;amp;`
    text = text.encode("utf-8", errors="ignore").decode("utf-8")  # JSON may hold half a surrogate pair
    return " ".join(text.split())


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def _is_empty(data: TaskData, frame: pd.DataFrame) -> pd.Series:
    empty = frame["text"] == ""
    return empty | (frame["text_pair"] == "") if data.columns.text_pair is not None else empty


def _keys(frame: pd.DataFrame) -> pd.Series:
    return frame["text"] + "\n" + frame["text_pair"]  # a clean text has no line break


def _subsample(frame: pd.DataFrame, limit: int, rng: np.random.Generator) -> pd.DataFrame:
    """At most `limit` rows, in their old order; a larger limit keeps the rows of a smaller one."""
    kept = np.sort(rng.permutation(len(frame))[:limit])
    return frame.iloc[kept].reset_index(drop=True)


def _hold_out(data: TaskData, train: pd.DataFrame, limits: Data, place: str) -> dict[str, pd.DataFrame]:
    """Set `limits.held_out` training rows aside, in random order; a larger number keeps the first of a smaller one."""
    key = "params.yaml: data.held_out"
    if limits.held_out > len(train) // 2:
        raise UserError(
            f"{key}: found {limits.held_out}, allowed: at most half of the {len(train)} training rows of {place}"
        )
    order = np.random.default_rng([limits.seed, len(SPLITS)]).permutation(len(train))
    held_out = train.iloc[order[: limits.held_out]]
    kept = train.drop(held_out.index)
    kept = kept[~_keys(kept).isin(_keys(held_out))]  # a text that stands twice is not trained on either
    frames = {"train": kept.reset_index(drop=True), "held_out": held_out.reset_index(drop=True)}
    for frame in frames.values():
        _check_split(data, frame, place, key, limits.held_out)
    return frames


def _check_split(data: TaskData, frame: pd.DataFrame, place: str, key: str, limit: int) -> None:
    if frame.empty:
        raise UserError(f"{place}: no rows are left after cleaning; allowed: rows of at least two labels")
    values = frame["label"].unique()
    if len(values) == 1:
        found = data.labels[int(values[0])] if data.labels else values[0]
        raise UserError(
            f"{place}: all {len(frame)} rows kept have the label {found!r} ({key} is {limit}); "
            "allowed: rows of at least two labels"
        )


def _labels(data: TaskData, rows: dict[str, Rows], where: str) -> dict[str, np.ndarray]:
    """Labels as float64 `[rows]` for each split; NaN for a rating that `binarize` drops."""
    key = f"{where}: data.columns.label {data.columns.label!r}"
    raw = {split: _column(rows[split], data.columns.label, "label", where) for split in SPLITS}
    for split, values in raw.items():
        missing = [number for number, value in enumerate(values) if _is_missing(value) or str(value).strip() == ""]
        if missing:
            raise UserError(
                f"{key}: {len(missing)} of {len(values)} labels are missing in {rows[split].where} "
                f"(first: row {missing[0] + 1}); allowed: a label in every row"
            )
    if data.labels and data.binarize is None:
        return _class_indices(raw, data.labels, key, rows)
    numbers = {split: _numbers(values, key, rows[split].where) for split, values in raw.items()}
    if data.binarize is not None:
        return {split: _binarize(ratings, data.binarize) for split, ratings in numbers.items()}
    assert data.range is not None  # TaskData asks for it with regression
    for split, targets in numbers.items():
        _check_range(targets, data.range, key, rows[split].where)
    return numbers


def _numbers(values: list[Any], key: str, place: str) -> np.ndarray:
    numbers = np.empty(len(values))
    for row, value in enumerate(values):
        try:
            numbers[row] = float(value)
        except (TypeError, ValueError):
            numbers[row] = np.nan
        if not np.isfinite(numbers[row]):
            raise UserError(f"{key}: found {value!r} in row {row + 1} of {place}, allowed: a finite number")
    return numbers


def _binarize(ratings: np.ndarray, binarize: Binarize) -> np.ndarray:
    """Class 0 below `below`, class 1 above `above`, NaN between."""
    return np.where(ratings < binarize.below, 0.0, np.where(ratings > binarize.above, 1.0, np.nan))


def _check_range(values: np.ndarray, allowed: tuple[float, float], key: str, place: str) -> None:
    outside = np.flatnonzero((values < allowed[0]) | (values > allowed[1]))
    if len(outside):
        row = outside[0]
        raise UserError(
            f"{key}: found {values[row]:g} in row {row + 1} of {place}, allowed: {allowed[0]:g} to {allowed[1]:g} "
            f"(data.range); {len(outside)} rows are outside"
        )


def _class_indices(raw: dict[str, list[Any]], labels: list[str], key: str, rows: dict[str, Rows]) -> dict[str, Any]:
    """Class names or integer indices -> indices. Both splits are read in one way: as names if all are names."""
    words = {split: [_word(value) for value in values] for split, values in raw.items()}
    found = {word for values in words.values() for word in values}
    by_name = {_word(label): float(index) for index, label in enumerate(labels)}
    by_index = {str(index): float(index) for index in range(len(labels))}
    for table in (by_name, by_index):
        if found <= table.keys():
            return {split: np.array([table[word] for word in values]) for split, values in words.items()}
    allowed = f"{', '.join(labels)}, or their indices 0 to {len(labels) - 1}"
    known = by_name.keys() | by_index.keys()
    for split, values in words.items():
        for row, word in enumerate(values):
            if word not in known:
                hint = nearest(word, labels)
                raise UserError(
                    f"{key}: found {word!r} in row {row + 1} of {rows[split].where}{hint}; allowed: {allowed}"
                )
    raise UserError(
        f"{key}: found names and indices mixed ({', '.join(sorted(found))}); allowed: {allowed}, throughout"
    )


def _word(value: Any) -> str:
    """A label as it is written: 1, 1.0, True and " 1 " are all "1"."""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    word = str(value).strip()
    return word[:-2] if re.fullmatch(r"-?\d+\.0", word) else word
