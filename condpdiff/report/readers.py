"""Reads the tables and tensors that the report is made from; what is wrong with a file is one line that names it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from condpdiff.common.errors import UserError


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table that has at least `columns`; lines above its header that begin with `#` are comments.

    Raises:
        UserError: the file is absent or broken, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8") as file:
            above = sum(1 for _ in takewhile(lambda line: line.startswith("#"), file))
        frame = pd.read_csv(path, skiprows=above)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro`") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable table ({error})") from None
    if missing := [c for c in columns if c not in frame]:
        raise UserError(f"{path}: no column {missing[0]!r}, found: {', '.join(map(str, frame.columns))}")
    return frame


@contextmanager
def open_arrays(path: Path, names: Sequence[str]) -> Iterator[list[Any]]:
    """Tensors of a safetensors file as slices: `slice[a:b]` reads a part, `slice.get_shape()` nothing.

    Raises:
        UserError: the file is absent or broken, or lacks a tensor.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            found = sorted(file.keys())
            if missing := [n for n in names if n not in found]:
                raise UserError(f"{path}: no tensor {missing[0]!r}, found: {', '.join(found)}")
            yield [file.get_slice(n) for n in names]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro`") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Tensors of a safetensors file as NumPy arrays.

    Raises:
        UserError: the file is absent or broken, or lacks a tensor.
    """
    with open_arrays(path, names) as slices:
        return {name: part[:] for name, part in zip(names, slices, strict=True)}


def read_distances(table: Path, tensors: Path, columns: list[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """A table of M points, and the distances [M, M] between them.

    Raises:
        UserError: a file is absent or broken, or sizes disagree.
    """
    points = read_csv(table, columns)
    distances = read_arrays(tensors, ["distances"])["distances"]
    if distances.shape != (len(points), len(points)):
        raise UserError(
            f"{tensors}: distances are {list(distances.shape)}, "
            f"needed: [{len(points)}, {len(points)}], one for each row of {table.name}"
        )
    return points, distances
