"""A task's rows, made ready: columns `text`, `text_pair`, `label`, splits `train`, `held_out` and `validation`."""

import html
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError, nearest
from condpdiff.common.sources import read_table
from condpdiff.common.splits import SPLITS, hold_out, most, save_splits, subsample
from condpdiff.common.task import TASKS, Data
from condpdiff.text.conditions import describe
from condpdiff.text.families.data import prepare_family
from condpdiff.text.families.wordnet import PACKAGE
from condpdiff.text.sources import Rows, read_source
from condpdiff.text.task import Columns, HubSource, PackageSource, Task, TaskData, WordnetSource


def prepare_data(name: str, task: Task, limits: Data, out: Path) -> None:
    """Write a task's splits as parquet files, and its description, to `out`; or a family's.

    Raises:
        UserError: as `prepare`.
    """
    if task.members is not None:
        prepare_family(name, task, limits, out)
        return
    frames = prepare(task.data, name, limits)
    save_splits(out, frames, describe(task, frames["train"]))
    print(f"{name}: " + ", ".join(f"{split} {label_summary(task.data, frame)}" for split, frame in frames.items()))


def needs(task: Task) -> list[tuple[str, str]]:
    """As `domain.DataModule`."""
    source = task.data.source
    if isinstance(source, PackageSource):
        return [("package", source.package)]
    if isinstance(source, HubSource):
        return [("dataset", source.dataset)]
    if isinstance(source, WordnetSource):
        return [("package", PACKAGE)]
    return [("file", source.train), ("file", source.validation)]


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
    unlabelled = {split: np.zeros(len(rows[split].frame)) for split in SPLITS}
    labels = unlabelled if data.kind == "language" else _labels(data, rows, where)
    texts = {split: _texts(data, rows[split], where).assign(label=labels[split]) for split in SPLITS}
    frames = {split: _complete(data, frame, f"{name}: {split}") for split, frame in texts.items()}
    frames = subsample(frames, limits, _keys, name)
    for split in SPLITS:
        _check_split(data, frames[split], rows[split].where, f"params.yaml: data.max_{split}", most(limits)[split])
    frames |= hold_out(frames["train"], limits, _keys, rows["train"].where)
    for split in ("train", "held_out") if limits.held_out else ():
        _check_split(data, frames[split], rows["train"].where, "params.yaml: data.held_out", limits.held_out)
    return frames


def read_labelled(path: Path, data: TaskData) -> pd.DataFrame:
    """The user's own rows of a task: a file with columns text, label and, of a task of pairs, text_pair.

    Returns:
        Columns `text`, `text_pair` and `label`, as `prepare` gives them.

    Raises:
        UserError: the file can't be read, or its rows are not the task's.
    """
    where = str(path)
    if not path.is_file():
        raise UserError(f"{where}: no such file")
    pair = "text_pair" if data.columns.text_pair is not None else None
    data = data.model_copy(update={"columns": Columns(text="text", text_pair=pair, label="label"), "binarize": None})
    rows = Rows(where, read_table(path, None, where))
    both = dict.fromkeys(SPLITS, rows)
    labels = np.zeros(len(rows.frame)) if data.kind == "language" else _labels(data, both, where)["train"]
    frame = _complete(data, _texts(data, rows, where).assign(label=labels), where).reset_index(drop=True)
    _check_split(data, frame, where, "rows", len(frame))
    return frame


def label_summary(data: TaskData, frame: pd.DataFrame) -> str:
    """One short phrase: the number of rows and how the labels are distributed."""
    label = frame["label"]
    if data.kind == "language":
        return f"{len(frame)} rows"
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


def _complete(data: TaskData, frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """The rows that have their texts and a label; says how many others there were."""
    empty = frame["text"] == ""
    if data.columns.text_pair is not None:
        empty |= frame["text_pair"] == ""
    between = frame["label"].isna()  # `binarize` drops the row
    for reason, rows in (("without text", empty), ("between the two classes", between)):
        if rows.any():
            print(f"{what}: dropped {rows.sum()} rows {reason}", file=sys.stderr)
    return frame[~(empty | between)]


def _keys(frame: pd.DataFrame) -> pd.Series:
    return frame["text"] + "\n" + frame["text_pair"]  # a clean text has no line break


def _check_split(data: TaskData, frame: pd.DataFrame, place: str, key: str, limit: int) -> None:
    if frame.empty:
        raise UserError(f"{place}: no rows are left after cleaning; allowed: rows of at least two labels")
    if data.kind == "language":
        return
    values = frame["label"].unique()
    if len(values) == 1:
        found = data.labels[int(values[0])] if data.labels else values[0]
        raise UserError(
            f"{place}: all {len(frame)} rows kept have the label {found!r} ({key} is {limit}); "
            "allowed: rows of at least two labels"
        )


def _labels(data: TaskData, rows: dict[str, Rows], where: str) -> dict[str, np.ndarray]:
    """Labels as float64 `[rows]` for each split; NaN for a rating that `binarize` drops."""
    assert data.columns.label is not None  # TaskData asks for it
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
    if (cut := data.binarize) is not None:  # class 0 below, class 1 above, NaN between
        between = {split: np.where(x > cut.above, 1.0, np.nan) for split, x in numbers.items()}
        return {split: np.where(x < cut.below, 0.0, between[split]) for split, x in numbers.items()}
    assert data.range is not None  # TaskData asks for it with regression
    low, high = data.range
    for split, targets in numbers.items():
        outside = np.flatnonzero((targets < low) | (targets > high))
        if len(outside):
            raise UserError(
                f"{key}: found {targets[outside[0]]:g} in row {outside[0] + 1} of {rows[split].where}, allowed: "
                f"{low:g} to {high:g} (data.range); {len(outside)} rows are outside"
            )
    return numbers


def _numbers(values: list[Any], key: str, place: str) -> np.ndarray:
    numbers = np.array([_number(value) for value in values], dtype=np.float64)
    for row in np.flatnonzero(~np.isfinite(numbers)):
        raise UserError(f"{key}: found {values[row]!r} in row {row + 1} of {place}, allowed: a finite number")
    return numbers


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


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
