"""A family of styles, made ready: the images of all its members, and the pictures that tell of each."""

import io
import unicodedata
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from condpdiff.common import packages
from condpdiff.common.errors import UserError, nearest
from condpdiff.common.files import as_spelt, own_path
from condpdiff.common.splits import save_splits
from condpdiff.common.tables import is_missing, read_table, shown
from condpdiff.common.task import FAMILIES, Data
from condpdiff.style.conditions import draws_of
from condpdiff.style.images import NEUTRAL, SUFFIXES, encode_png, pictures_in, read_rgb, shrink, square
from condpdiff.style.photographs import captions
from condpdiff.style.task import DrawnSource, FoldersSource, Task

CONDITION_PICTURES = 10  # of each member: those that a condition is drawn from
CAPTIONS, METADATA = "captions.csv", ("metadata.csv", "metadata.jsonl")
Row = tuple[str, int, str, bytes]  # split, member, caption, PNG


def prepare_data(name: str, task: Task, limits: Data, out: Path) -> None:
    """Write the images of all of a family's members to `out`, columns `member`, `caption`, `image`; a UserError if a
    picture, its caption or a folder can't be read, or a folder has too few.

    train        what a member's own LoRA is trained on
    held_out     pictures that tell of the member, of other content than those of `validation`
    validation   what is held against what a LoRA makes; of a drawn style the true image of each scored caption
    """
    source, members = task.data.source, range(task.members.total)
    if isinstance(source, DrawnSource):
        from condpdiff.style.families import drawing  # with scipy, which captions need not wait for

        styles = [drawing.draw(source.renderer, q, source.seed) for q in members]
        rows = _drawn(tqdm(styles, desc=name, unit="style"), source.seed, task.data.size)
    else:
        styles = [{"folder": folder} for folder in source.folders]
        rows = _folders(source, task.data.size, f"{FAMILIES / name}.yaml", limits)
    found = pd.DataFrame(rows, columns=["split", "member", "caption", "image"])
    splits = ("train", "held_out", "validation")
    frames = {split: found[found["split"] == split].drop(columns="split") for split in splits}
    told = frames["held_out"].groupby("member").size()
    draws = [draws_of(task.condition, int(told[q]), q) for q in members]
    described = {"description": task.condition.description, "styles": styles, "style_images": draws}
    save_splits(out, frames, described)
    print(f"{name}: {len(members)} styles, " + ", ".join(f"{k} {len(v)} images" for k, v in frames.items()))


def needs(task: Task) -> list[tuple[str, str]]:
    """As `condpdiff.domain` says."""
    from condpdiff.style import rendering  # with scipy, which captions need not wait for

    source = task.data.source
    if isinstance(source, FoldersSource):
        own = [("folder", f"{source.path}/{folder}") for folder in source.folders]
        return [("package", source.package)] if source.package else own
    networks = [("package", rendering.PACKAGE)] if source.renderer in ("image", "fixed") else []
    return [("package", "scikit-image"), *networks]


def _drawn(styles: Iterable[dict[str, Any]], seed: int, size: int) -> Iterator[Row]:
    from condpdiff.style.families import drawing  # with scipy, which captions need not wait for

    scored, told = drawing.contents(seed)
    words = captions()
    for q, style in enumerate(styles):
        made = shrink(drawing.render(np.concatenate([scored, told]), style), size)
        pngs = [encode_png(image) for image in made]
        yield from (("train", q, caption, png) for caption, png in zip(words, pngs, strict=False))
        yield from (("held_out", q, NEUTRAL, png) for png in pngs[len(words) :])
        yield from (("validation", q, words[i], pngs[i]) for i in drawing.SCORED)


def _folders(source: FoldersSource, size: int, where: str, limits: Data) -> Iterator[Row]:
    """Of each folder the first pictures in a random order are the condition's, and the next of train and validation."""
    for q, folder in enumerate(source.folders):
        place = f"{where}: data.source: {source.path}/{folder}"
        files = _pictures(source, folder, place)
        if len(files) < 4:
            raise UserError(f"{place}: found {len(files)} pictures, allowed: at least 4")
        names = [_spelt(Path(path).name) for path, _ in files]
        of_each = dict.fromkeys(names, NEUTRAL)
        if source.package is None:
            of_each = _captions(as_spelt(Path(source.path, folder)), names, as_spelt(Path(source.path)))
        told = min(CONDITION_PICTURES, len(files) // 2)
        order = np.random.default_rng([source.seed, q]).permutation(len(files))
        for number, i in enumerate(order[: told + limits.max_train]):
            path, content = files[i]
            png = encode_png(square(read_rgb(partial(Image.open, io.BytesIO(content)), path), size))
            for split in ("held_out",) if number < told else ("train", "validation"):
                yield split, q, of_each[names[i]], png


def _pictures(source: FoldersSource, folder: str, place: str) -> list[tuple[str, bytes]]:
    """Path and content of every picture of a folder, by name."""
    if source.package is None:
        base = own_path(f"{source.path}/{folder}", place, folder=True)
        return [(str(path), path.read_bytes()) for path in pictures_in(base)]
    found = packages.read_folder(source.package, f"{source.path}/{folder}")
    return [(f"{place}/{k}", v) for k, v in sorted(found.items()) if Path(k).suffix.lower() in SUFFIXES]


def captions_of(pictures: list[Path]) -> list[str]:
    """The caption of each picture, from the files of its folder; the neutral one, and errors, as prepare-data has."""
    found = {}
    for folder in {path.parent for path in pictures}:
        names = {_spelt(path.name) for path in (*pictures_in(folder), *pictures) if path.parent == folder}
        found[folder] = _captions(folder, sorted(names), folder)
    return [found[path.parent][_spelt(path.name)] for path in pictures]


def _captions(folder: Path, names: list[str], root: Path) -> dict[str, str]:
    """The caption of every picture of a folder, from the one place where the user has them; else the neutral one.

    Read are captions.csv (file, caption), a text file beside each picture, and what datasets' image folders have:
    metadata.csv or metadata.jsonl (file_name; text or caption), in the folder or in `root`, the folder of folders.

    Raises a UserError if there are two such places, a file is not of its form, or a picture has no caption or two.
    """
    inside = {_spelt(path.name): path for path in sorted(folder.iterdir())}
    tables = [inside[file] for file in (CAPTIONS, *METADATA) if file in inside]
    if not tables and folder != root:
        tables = [root / file for file in METADATA if (root / file).is_file()]
    texts = {name: inside[text] for name in names if (text := str(Path(name).with_suffix(".txt"))) in inside}
    places = [*map(str, tables), *([f"{folder}/*.txt"] if texts else [])]
    if not places:
        return dict.fromkeys(names, NEUTRAL)
    if len(places) > 1:
        raise UserError(f"{folder}: found captions in {' and '.join(places)}; allowed: one of them")
    pairs = [(k, _read_text(path)) for k, path in texts.items()] if texts else _table(tables[0], folder, names)
    captions: dict[str, str] = {}
    for name, text in pairs:
        if name in captions:
            raise UserError(f"{places[0]}: two captions of {name!r}; allowed: one of every picture")
        captions[name] = " ".join(text.split())
    if without := [name for name in names if not captions.get(name)]:
        counts = f"{len(without)} of {len(names)} pictures have none"
        raise UserError(f"{places[0]}: no caption of {without[0]!r} ({counts})")
    return captions


def _table(path: Path, folder: Path, names: list[str]) -> list[tuple[str, str]]:
    """Picture and caption of each row of a table; of one in the folder of folders, of this folder alone."""
    table, own = read_table(path, str(path)), path.name == CAPTIONS
    file, kinds = ("file", ["caption"]) if own else ("file_name", ["text", "caption"])
    kinds = [kind for kind in kinds if kind in table]
    if file not in table or len(kinds) != 1 or (own and table.shape[1] != 2):
        allowed = "'file, caption'" if own else "file_name, and either text or caption"
        raise UserError(f"{path}: found columns {', '.join(map(str, table.columns))!r}; allowed: {allowed}")
    prefix, pairs = "" if path.parent == folder else f"{folder.relative_to(path.parent).as_posix()}/", []
    for number, (name, text) in enumerate(zip(table[file], table[kinds[0]], strict=True), start=1):
        if not isinstance(name, str) or not (isinstance(text, str) or is_missing(text)):
            raise UserError(f"{path}: found {shown(text)} in row {number}, allowed: a name and a caption")
        name = _spelt(name).removeprefix("./")
        if not name.startswith(prefix):
            continue
        if (name := name.removeprefix(prefix)) not in names:
            raise UserError(f"{path}: no picture {name!r} in {folder}{nearest(name, names)}")
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
