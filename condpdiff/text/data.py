"""A task's rows, made ready: columns `text`, `text_pair`, `label`, splits `train`, `held_out` and `validation`."""

import html
import sys
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.common.files import as_spelt
from condpdiff.common.splits import SPLITS, hold_out, save_splits, subsample
from condpdiff.common.tables import is_missing, read_table, shown
from condpdiff.common.task import TASKS, Data
from condpdiff.text.conditions import describe
from condpdiff.text.families.wordnet import PACKAGE, prepare_family
from condpdiff.text.labels import read_labels
from condpdiff.text.sources import Rows, column, read_source
from condpdiff.text.task import Columns, FilesSource, HubSource, PackageSource, Task, TaskData

MOST_LINES = 5  # a text of more may have swallowed rows
MUCH_LONGER = 5  # so many times as long as the next one is a text that may have


def prepare_data(name: str, task: Task, limits: Data, out: Path) -> None:
    """Write a task's splits as parquet files, and its description, to `out`, or a family's; raises as `prepare`."""
    if task.members is not None:
        prepare_family(name, task, limits, out)
        return
    frames = prepare(task.data, name, limits)
    save_splits(out, frames, describe(task, frames["train"]))
    print(f"{name}: " + ", ".join(f"{split} {label_summary(task.data, frame)}" for split, frame in frames.items()))


def needs(task: Task) -> list[tuple[str, str]]:
    """As `condpdiff.domain` says."""
    source = task.data.source
    if isinstance(source, FilesSource):
        return [("file", name) for name in (source.train, source.validation, source.file) if name is not None]
    if isinstance(source, HubSource):
        return [("dataset", source.dataset)]
    return [("package", source.package if isinstance(source, PackageSource) else PACKAGE)]


def prepare(data: TaskData, name: str, limits: Data) -> dict[str, pd.DataFrame]:
    """Read, clean, label and subsample the rows of a task; the same input gives the same rows in the same order.
    Returns: `train`, `held_out` (training rows set aside, in random order) and `validation`, each with columns `text`,
        `text_pair` ("" when the task has none) and `label` (float64: the class index, or the regression target).
    Raises UserError: the source or its content is wrong.
    """
    where = f"{TASKS / name}.yaml"
    rows = read_source(data, where)
    read = _with_labels(data, rows, where)
    frames = {split: _complete(data, frame, f"{name}: {split}") for split, frame in read.items()}
    complete = {split: len(frame) for split, frame in frames.items()}
    complete["train"] -= int(_keys(frames["train"]).isin(set(_keys(frames["validation"]))).sum())
    frames = subsample(frames, limits, _keys, name)
    dropped = {split: len(frame) - complete[split] for split, frame in read.items()}
    told = [f"{len(read[k])} rows of {k} read, {dropped[k]} dropped, {len(frames[k])} kept" for k in SPLITS]
    print(f"{name}: {'; '.join(told)}")
    for split in SPLITS:
        _check_split(data, frames[split], rows[split].where, limits, f"max_{split}")
    frames |= hold_out(frames["train"], limits, _keys, rows["train"].where)
    for split in ("train", "held_out") if limits.held_out else ():
        _check_split(data, frames[split], rows["train"].where, limits, "held_out")
    there = set(frames["train"]["label"])
    if without := [label for index, label in enumerate(data.labels or []) if index not in there]:
        kept = f"{len(frames['train'])} rows kept of {rows['train'].where}"
        print(f"warning: {where}: data.labels: no row of {', '.join(without)} among the {kept}", file=sys.stderr)
    return frames


def read_labelled(path: Path, data: TaskData) -> pd.DataFrame:
    """The user's own rows of a task, as `prepare` gives them, out of a file with columns text, label and, of a task of
    pairs, text_pair; a UserError if it can't be read, or its rows are not the task's."""
    where, path = str(path), as_spelt(path)
    if not path.is_file():
        raise UserError(f"{where}: no such file")
    pair = "text_pair" if data.columns.text_pair is not None else None
    data = data.model_copy(update={"columns": Columns(text="text", text_pair=pair, label="label"), "binarize": None})
    read = _with_labels(data, {"train": Rows(where, read_table(path, where))}, where)
    frame = _complete(data, read["train"], where).reset_index(drop=True)
    _check_split(data, frame, where)
    return frame


def label_summary(data: TaskData, frame: pd.DataFrame) -> str:
    """One short phrase: the number of rows and how the labels are distributed."""
    label, shares = frame["label"], ""
    if data.labels:
        shares = ", ".join(f"{name} {int((label == index).sum())}" for index, name in enumerate(data.labels))
    elif data.kind == "regression":
        shares = f"{label.min():.2f} to {label.max():.2f}, mean {label.mean():.2f}, std {label.std():.2f}"
    return f"{len(frame)} rows" + (f" ({shares})" if shares else "")


def _with_labels(data: TaskData, rows: dict[str, Rows], where: str) -> dict[str, pd.DataFrame]:
    """Every row of each split: clean `text` and `text_pair`, "" where there is none, and `label`."""
    unlabelled = {split: np.zeros(len(each.frame)) for split, each in rows.items()}
    labels = unlabelled if data.kind == "language" else read_labels(data, rows, where)
    frames = {}
    for split, each in rows.items():
        texts = {key: _texts(data, each, key, where) for key in ("text", "text_pair")}
        frames[split] = pd.DataFrame({key: pd.Series(found, dtype=str) for key, found in texts.items()})
        frames[split]["label"] = labels[split]
    return frames


def _texts(data: TaskData, rows: Rows, key: str, where: str) -> list[str]:
    """The clean texts of one of the task's columns."""
    scraped, name = isinstance(data.source, PackageSource), getattr(data.columns, key)
    if name is None:
        return [""] * len(rows.frame)
    place, found = f"{where}: data.columns.{key} {name!r}", []
    for row, value in enumerate(column(rows, name, f"columns.{key}", where)):
        try:
            found.append(_text(value, data.columns.join, name))
        except ValueError as error:
            raise UserError(f"{place}: found {shown(value)} in {rows.place(row)}, allowed: {error}") from None
    if not scraped:
        _warn_of_swallowed_rows(found, rows, place)
    return [_clean(text, scraped) for text in found]


def _text(value: Any, join: str | None, name: str) -> str:
    """Strings and numbers are text, bytes are UTF-8; "" where nothing stands. A ValueError says what is allowed."""
    if isinstance(value, str):
        return value
    if is_missing(value):
        return ""
    if isinstance(value, Number) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError("bytes of UTF-8") from None
    listed = isinstance(value, list | tuple | np.ndarray)
    if listed and join is not None and all(isinstance(one, str) for one in value):
        return join.join(value)
    hint, first = "", value[0] if listed and len(value) else value
    if listed and isinstance(first, str):
        hint = ", or with data.columns.join: ' ' a list of strings"
    elif isinstance(first, dict) and first:
        inner = "content" if "content" in first else next(iter(first))
        hint = f", or a path to one such as {name}{'.0' if listed else ''}.{inner}"
    raise ValueError(f"a string or a number{hint}")


def _warn_of_swallowed_rows(texts: list[str], rows: Rows, place: str) -> None:
    """A quote that is never meant to open makes one text of many rows: say which texts look so."""
    lines = [text.strip().count("\n") + 1 for text in texts]
    if tall := [row for row, count in enumerate(lines) if count > MOST_LINES]:
        first = f"the first, in {rows.place(tall[0])}, over {lines[tall[0]]}"
        print(f"warning: {place}: {len(tall)} texts go over many lines ({first})", file=sys.stderr)
    lengths = np.array([len(text) for text in texts])
    if len(texts) > 2:
        *_, second, longest = np.argsort(lengths)
        if lengths[longest] > max(MUCH_LONGER * lengths[second], 500):
            says = f"is far longer than all others ({lengths[longest]} characters, the next {lengths[second]})"
            print(f"warning: {place}: {rows.place(int(longest))} {says}", file=sys.stderr)


def _clean(text: str, scraped: bool) -> str:
    """One line of text, single spaces; scraped text also loses HTML entities and undecodable characters."""
    if scraped:
        text = html.unescape(html.unescape(text)).replace("\ufffd", "")  # twice: NYT has `&amp;amp;`
    text = text.encode("utf-8", errors="ignore").decode("utf-8")  # JSON may hold half a surrogate pair
    return " ".join(text.split())


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


def _check_split(data: TaskData, frame: pd.DataFrame, place: str, limits: Data | None = None, key: str = "") -> None:
    allowed = "allowed: rows of at least two labels"
    if frame.empty:
        raise UserError(f"{place}: no rows are left after cleaning; {allowed}")
    values = frame["label"].unique()
    if len(values) == 1 and data.kind != "language":
        found = data.labels[int(values[0])] if data.labels else float(values[0])
        limit = f" (params.yaml: data.{key} is {getattr(limits, key)})" if limits else ""
        raise UserError(f"{place}: all {len(frame)} rows kept have the label {found!r}{limit}; {allowed}")
