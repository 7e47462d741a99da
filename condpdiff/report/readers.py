"""Reads the tables and tensors that the report is made from; what is wrong with a file is one line that names it."""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file

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


def read_arrays(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """Tensors of a safetensors file as NumPy arrays.

    Raises:
        UserError: the file is absent or broken, or lacks a tensor.
    """
    try:
        found = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro`") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None
    if missing := [name for name in names if name not in found]:
        raise UserError(f"{path}: no tensor {missing[0]!r}, found: {', '.join(sorted(found))}")
    return [found[name] for name in names]


def read_distances(folder: Path, name: str, table: str, columns: list[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """A table of M points, and the distances [M, M] between them, of `<name>.safetensors`.

    Raises:
        UserError: a file is absent or broken, or sizes disagree.
    """
    points, path = read_csv(folder / table, columns), folder / f"{name}.safetensors"
    (distances,) = read_arrays(path, ["distances"])
    if distances.shape != (len(points), len(points)):
        needed = f"[{len(points)}, {len(points)}], one for each row of {table}"
        raise UserError(f"{path}: distances are {list(distances.shape)}, needed: {needed}")
    return points, distances
