"""A family of styles, made ready: the images of all its members, and the pictures that tell of each."""

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from condpdiff.common import packages
from condpdiff.common.errors import UserError, nearest
from condpdiff.common.sources import own_path
from condpdiff.common.splits import save_splits
from condpdiff.common.tables import read_table
from condpdiff.common.task import FAMILIES, Data
from condpdiff.style import rendering
from condpdiff.style.conditions import draws_of
from condpdiff.style.families import drawing
from condpdiff.style.images import SUFFIXES, encode_png, read_rgb, shrink, square
from condpdiff.style.photographs import photographs
from condpdiff.style.task import DrawnSource, FoldersSource, Task

CONDITION_PICTURES = 10
"""Of each member: those that a condition is drawn from."""
CAPTIONS = "captions.csv"
NEUTRAL = "a picture"
"""Caption of pictures that come without one."""
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
    parameters = []
    for q in tqdm(range(count), desc=name, unit="style"):
        style = drawing.draw(source.renderer, q, source.seed)
        parameters.append(style.parameters)
        images, pictures = np.split(shrink(style(np.concatenate([scored, told])), size), [len(scored)])
        pngs = [encode_png(image) for image in images]
        rows["train"] += [(q, caption, png) for caption, png in zip(captions, pngs, strict=True)]
        rows["held_out"] += [(q, NEUTRAL, encode_png(picture)) for picture in pictures]
        rows["validation"] += [(q, captions[i], pngs[i]) for i in drawing.SCORED]
    return rows, parameters


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
        captions = _captions(Path(source.path, folder), [Path(path).name for path, _ in files])
        found = []
        for path, content in (files[i] for i in kept):
            image = read_rgb(partial(Image.open, io.BytesIO(content)), path)
            found.append((q, captions[Path(path).name], encode_png(square(image, size))))
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


def _captions(folder: Path, names: list[str]) -> dict[str, str]:
    """The caption of every picture of a folder: of its captions.csv where the user has one."""
    path = folder / CAPTIONS
    if not path.is_file():
        return dict.fromkeys(names, NEUTRAL)
    table = read_table(path, str(path))
    if sorted(table.columns) != ["caption", "file"]:
        raise UserError(f"{path}: found columns {', '.join(table.columns)!r}; allowed: 'file, caption'")
    captions = {name: " ".join(text.split()) for name, text in zip(table["file"], table["caption"], strict=True)}
    for name in captions:
        if name not in names:
            raise UserError(f"{path}: no picture {name!r} in {folder}{nearest(name, names)}")
    if without := [name for name in names if not captions.get(name)]:
        raise UserError(f"{path}: no caption of {without[0]!r} ({len(without)} of {len(names)} pictures have none)")
    return captions
