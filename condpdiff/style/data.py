"""A family of styles, made ready: the images of all its members, and the pictures that tell of each."""

import io
import unicodedata
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from condpdiff.common import packages
from condpdiff.common.errors import UserError, nearest
from condpdiff.common.files import as_spelt
from condpdiff.common.sources import own_path
from condpdiff.common.splits import save_splits
from condpdiff.common.tables import is_missing, read_table, shown
from condpdiff.common.task import FAMILIES, Data
from condpdiff.style import rendering
from condpdiff.style.conditions import draws_of
from condpdiff.style.families import drawing
from condpdiff.style.images import NEUTRAL, SUFFIXES, encode_png, read_rgb, shrink, square
from condpdiff.style.photographs import photographs
from condpdiff.style.task import DrawnSource, FoldersSource, Task

CONDITION_PICTURES = 10
"""Of each member: those that a condition is drawn from."""
CAPTIONS, METADATA = "captions.csv", ("metadata.csv", "metadata.jsonl")
Rows = list[tuple[int, str, bytes]]
"""Member, caption, PNG."""


def prepare_data(name: str, task: Task, limits: Data, out: Path) -> None:
    """Write the images of all of a family's members to `out`, columns `member`, `caption`, `image`:

    train        what a member's own LoRA is trained on
    held_out     pictures that tell of the member, of other content than those of `validation`
    validation   what is held against what a LoRA makes; of a drawn style the true image of each scored caption

    Raises:
        UserError: a picture, its caption or a folder can't be read, or a folder has too few.
    """
    source, size = task.data.source, task.data.size
    if isinstance(source, DrawnSource):
        rows, parameters = _drawn(source, size, task.members.total, name)
    else:
        rows, parameters = _folders(source, size, f"{FAMILIES / name}.yaml", limits)
    frames = {split: pd.DataFrame(found, columns=["member", "caption", "image"]) for split, found in rows.items()}
    told = frames["held_out"].groupby("member").size()
    draws = [draws_of(task.condition, int(told[q]), q) for q in range(task.members.total)]
    described = {"description": task.condition.description, "styles": parameters, "style_images": draws}
    save_splits(out, frames, described)
    print(f"{name}: {task.members.total} styles, " + ", ".join(f"{k} {len(v)} images" for k, v in frames.items()))


def needs(task: Task) -> list[tuple[str, str]]:
    """As `domain.DataModule`."""
    source = task.data.source
    if isinstance(source, FoldersSource):
        own = [("folder", f"{source.path}/{folder}") for folder in source.folders]
        return [("package", source.package)] if source.package else own
    networks = [("package", rendering.PACKAGE)] if source.renderer in ("image", "fixed") else []
    return [("package", "scikit-image"), *networks]


def _drawn(source: DrawnSource, size: int, count: int, name: str) -> tuple[dict[str, Rows], list[Any]]:
    scored, told = drawing.contents(source.seed)
    captions = [photograph.caption for photograph in photographs()]
    rows: dict[str, Rows] = {"train": [], "held_out": [], "validation": []}
    styles: list[Any] = []
    for q in tqdm(range(count), desc=name, unit="style"):
        style = drawing.draw(source.renderer, q, source.seed)
        styles.append(style)
        images, pictures = np.split(shrink(drawing.render(np.concatenate([scored, told]), style), size), [len(scored)])
        pngs = [encode_png(image) for image in images]
        rows["train"] += [(q, caption, png) for caption, png in zip(captions, pngs, strict=True)]
        rows["held_out"] += [(q, NEUTRAL, encode_png(picture)) for picture in pictures]
        rows["validation"] += [(q, captions[i], pngs[i]) for i in drawing.SCORED]
    return rows, styles


def _folders(source: FoldersSource, size: int, where: str, limits: Data) -> tuple[dict[str, Rows], list[Any]]:
    """Of each folder the first pictures in a random order are the condition's, and the next of train and validation."""
    rows: dict[str, Rows] = {"train": [], "held_out": [], "validation": []}
    for q, folder in enumerate(source.folders):
        place = f"{where}: data.source: {source.path}/{folder}"
        files = _pictures(source, folder, place)
        order = np.random.default_rng([source.seed, q]).permutation(len(files))
        told = min(CONDITION_PICTURES, len(files) // 2)
        kept = order[: told + limits.max_train]
        if len(files) < 4:
            raise UserError(f"{place}: found {len(files)} pictures, allowed: at least 4")
        names = [_spelt(Path(path).name) for path, _ in files]
        captions = dict.fromkeys(names, NEUTRAL)
        if source.package is None:
            captions = _captions(as_spelt(Path(source.path, folder)), names, as_spelt(Path(source.path)))
        found = []
        for path, content in (files[i] for i in kept):
            image = read_rgb(partial(Image.open, io.BytesIO(content)), path)
            found.append((q, captions[_spelt(Path(path).name)], encode_png(square(image, size))))
        rows["held_out"] += found[:told]
        rows["train"] += found[told:]
        rows["validation"] += found[told:]
    return rows, [{"folder": folder} for folder in source.folders]


def _pictures(source: FoldersSource, folder: str, place: str) -> list[tuple[str, bytes]]:
    """Path and content of every picture of a folder, by name."""
    if source.package is None:
        base = own_path(f"{source.path}/{folder}", place, folder=True)
        return [(str(p), p.read_bytes()) for p in sorted(base.iterdir()) if p.suffix.lower() in SUFFIXES]
    found = packages.read_folder(source.package, f"{source.path}/{folder}")
    return [(f"{place}/{k}", v) for k, v in sorted(found.items()) if Path(k).suffix.lower() in SUFFIXES]


def _captions(folder: Path, names: list[str], root: Path) -> dict[str, str]:
    """The caption of every picture of a folder, from the one place where the user has them; else the neutral one.

    Read are captions.csv (file, caption), a text file beside each picture, and what datasets' image folders have:
    metadata.csv or metadata.jsonl (file_name; text or caption), in the folder or in `root`, the folder of folders.

    Raises:
        UserError: there are two such places; a file is not of its form; a picture has no caption or two.
    """
    inside = {_spelt(path.name): path for path in sorted(folder.iterdir())}
    tables = [inside[file] for file in (CAPTIONS, *METADATA) if file in inside]
    if not tables and folder != root:
        tables = [root / file for file in METADATA if (root / file).is_file()]
    beside = {name: inside.get(str(Path(name).with_suffix(".txt"))) for name in names}
    texts = {name: path for name, path in beside.items() if path is not None}
    found = [*map(str, tables), *([f"{folder}/*.txt"] if texts else [])]
    if len(found) > 1:
        raise UserError(f"{folder}: found captions in {' and '.join(found)}; allowed: one of them")
    if texts:
        where, pairs = f"{folder}/*.txt", [(name, _read_text(path)) for name, path in texts.items()]
    elif tables:
        where, pairs = (
            str(tables[0]),
            _table(tables[0], "" if tables[0].parent == folder else f"{folder.relative_to(root).as_posix()}/", names),
        )
    else:
        return dict.fromkeys(names, NEUTRAL)
    captions = {name: " ".join(text.split()) for name, text in pairs}
    if len(captions) < len(pairs):
        twice = next(name for number, (name, _) in enumerate(pairs) if name in dict(pairs[:number]))
        raise UserError(f"{where}: two captions of {twice!r}; allowed: one of every picture")
    if without := [name for name in names if not captions.get(name)]:
        raise UserError(f"{where}: no caption of {without[0]!r} ({len(without)} of {len(names)} pictures have none)")
    return captions


def _table(path: Path, prefix: str, names: list[str]) -> list[tuple[str, str]]:
    """Picture and caption of each row of a table; of one in the folder of folders, of the folder `prefix` alone."""
    table = read_table(path, str(path))
    file, kinds = ("file", ["caption"]) if path.name == CAPTIONS else ("file_name", ["text", "caption"])
    kinds = [kind for kind in kinds if kind in table]
    known = path.name != CAPTIONS or table.shape[1] == 2
    if file not in table or len(kinds) != 1 or not known:
        allowed = "'file, caption'" if path.name == CAPTIONS else "file_name, and either text or caption"
        raise UserError(f"{path}: found columns {', '.join(map(str, table.columns))!r}; allowed: {allowed}")
    pairs = []
    for number, (name, text) in enumerate(zip(table[file], table[kinds[0]], strict=True), start=1):
        if not isinstance(name, str) or not (isinstance(text, str) or is_missing(text)):
            raise UserError(f"{path}: found {shown(text)} in row {number}, allowed: a name and a caption")
        name = _spelt(name).removeprefix("./")
        if not name.startswith(prefix):
            continue
        if (name := name.removeprefix(prefix)) not in names:
            raise UserError(f"{path}: no picture {name!r} in {path.parent / prefix}{nearest(name, names)}")
        pairs.append((name, "" if is_missing(text) else text))
    return pairs


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; allowed: a caption in UTF-8") from None


def _spelt(name: str) -> str:
    """A name in the one form in which names are compared: `é` as one character."""
    return unicodedata.normalize("NFC", name)
