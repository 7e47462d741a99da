"""Where a style's images come from: rendered photographs, a folder, or the Hugging Face hub.

Every reader gives captions and square images of the style's size; a style's images leave here as PNG.
"""

import io
import sys
from collections.abc import Callable
from functools import cache, partial
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from condpdiff.common.errors import UserError, nearest
from condpdiff.common.sources import hub_data, own_path, package_file, read_table
from condpdiff.style import rendering
from condpdiff.style.images import NEUTRAL, SUFFIXES, encode_png, read_rgb, square
from condpdiff.style.photographs import FRAMINGS, Photograph, photographs
from condpdiff.style.task import FolderSource, HubSource, RenderedSource, StyleImage, TaskData

RENDERED_PIXELS = 2
"""Pixels that are rendered for each one of a crop, along a side: strokes a little finer than pixels."""

CAPTIONS = "captions.csv"


class Picture(NamedTuple):
    """One image of a style."""

    caption: str
    png: bytes
    """RGB of 8 bits, size x size."""


def read_source(data: TaskData, where: str, most: dict[str, int], seed: int) -> dict[str, list[Picture]]:
    """Read a style's images as splits `train` and `validation`.

    Args:
        where: the task's file, for errors.
        most: images a split: as many are rendered; of the hub's data set no more are read than these need.
        seed: params.yaml's, beside the source's own.

    Raises:
        UserError: the source is absent, unreachable, or holds an image that can't be used; one line.
    """
    source = data.source
    if isinstance(source, RenderedSource):
        return _render(source, data.size, most, seed, where)
    if isinstance(source, FolderSource):
        pictures = _read_folder(source, data.size, where)
    else:
        assert isinstance(source, HubSource)  # families are read by `families.data`
        needed = max(most["validation"] / source.validation, most["train"] / (1 - source.validation))
        pictures = _read_hub(source, data.size, ceil(needed), where)
    order = np.random.default_rng(source.seed).permutation(len(pictures))
    in_validation = set(order[: round(len(pictures) * source.validation)].tolist())
    return {
        "train": [picture for i, picture in enumerate(pictures) if i not in in_validation],
        "validation": [pictures[i] for i in sorted(in_validation)],
    }


# --- rendered photographs -----------------------------------------------------------------------


def _render(source: RenderedSource, size: int, most: dict[str, int], seed: int, where: str) -> dict[str, list[Picture]]:
    """Crops of rendered photographs: one of each, then all again, each moved a little.

    The photographs are rendered and not their crops, at a size that makes the strokes of all crops of one width. Image
    i of a split is the same however many are asked for.
    """
    render, real = _renderer(source, where), photographs()

    @cache
    def rendered(q: int) -> Photograph:
        shorter = RENDERED_PIXELS * size / FRAMINGS[real[q].framing]
        image = render(_shrunk(real[q].image, shorter), np.random.default_rng([source.seed, q]))
        return real[q]._replace(image=image)

    def picture(split: str, i: int) -> Picture:
        photograph = rendered(i % len(real))
        rng = np.random.default_rng([source.seed, seed, split == "validation", i])
        return Picture(photograph.caption, encode_png(photograph.crop(rng, size)))

    return {split: [picture(split, i) for i in range(count)] for split, count in most.items()}


def _renderer(source: RenderedSource, where: str) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """(uint8 [H, W, 3], grain) -> uint8 [H, W, 3]."""
    if source.index is not None:
        index = source.index
        return lambda image, _: rendering.fixed(image, index)
    if source.image is not None:
        vector = rendering.style_vector(_style_image(source.image, where))
        return lambda image, _: rendering.of_image(image, vector)
    return {"charcoal": rendering.charcoal, "chalk": rendering.chalk}[source.renderer]


def _style_image(image: StyleImage, where: str) -> np.ndarray:
    place = f"{where}: data.source.image"
    if image.file is not None:
        path = own_path(image.file, f"{place}.file")
        return read_rgb(lambda: Image.open(path), f"{place}.file: {path}")
    content = package_file(str(image.package), str(image.member), place)
    return read_rgb(lambda: Image.open(io.BytesIO(content)), f"{place}.member: {image.member}")


def _shrunk(image: np.ndarray, shorter: float) -> np.ndarray:
    """The photograph with a shorter side of that many pixels, or as it is where it has no more."""
    height, width, _ = image.shape
    scale = min(1.0, shorter / min(height, width))
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


# --- the user's images --------------------------------------------------------------------------


def _read_folder(source: FolderSource, size: int, where: str) -> list[Picture]:
    place = f"{where}: data.source.path"
    folder = own_path(source.path, place, folder=True)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    others = [path.name for path in files if path not in images and path.name != CAPTIONS]
    if others:
        print(f"{folder}: passed over {len(others)} other files ({', '.join(others[:5])})", file=sys.stderr)
    if not images:
        raise UserError(f"{place}: no images in {folder}; allowed: {', '.join(SUFFIXES)}")
    captions = _captions(folder / CAPTIONS, [path.name for path in images])
    return [Picture(captions[path.name], _read_file(path, size)) for path in images]


def _read_file(path: Path, size: int) -> bytes:
    return encode_png(square(read_rgb(lambda: Image.open(path), str(path)), size, str(path)))


def _captions(path: Path, names: list[str]) -> dict[str, str]:
    """The caption of every image: of `captions.csv` where there is one, else the file's name in words."""
    if not path.is_file():
        return {name: _words(Path(name).stem).rstrip(" 0123456789") or NEUTRAL for name in names}
    table = read_table(path, None, str(path))
    if sorted(table.columns) != ["caption", "file"]:
        raise UserError(f"{path}: found columns {', '.join(table.columns)!r}; allowed: 'file, caption'")
    if table["file"].duplicated().any():
        raise UserError(f"{path}: file {table['file'][table['file'].duplicated()].iloc[0]!r} stands there twice")
    captions = {name: " ".join(text.split()) for name, text in zip(table["file"], table["caption"], strict=True)}
    for name in captions:
        if name not in names:
            raise UserError(f"{path}: no image {name!r} in {path.parent}{nearest(name, names)}")
    without = [name for name in names if not captions.get(name)]
    if without:
        raise UserError(f"{path}: no caption of {without[0]!r} ({len(without)} of {len(names)} images have none)")
    return captions


def _words(value: str) -> str:
    return " ".join(value.replace("_", " ").replace("-", " ").split())


# --- the hub ------------------------------------------------------------------------------------


def _read_hub(source: HubSource, size: int, most: int, where: str) -> list[Picture]:
    """The first `most` images of a data set that pass the filter, read as a stream: such sets are tens of gigabytes."""
    pictures: list[Picture] = []
    smaller = 0
    otherwise = "or give its images locally: `data.source: {type: folder, path: FOLDER}`"
    with hub_data(source.dataset, source.config, where, otherwise) as (datasets, place):
        loaded = datasets.load_dataset(source.dataset, source.config, split=source.split, streaming=True)
        names = _class_names(loaded.features or {})
        _check_columns(source, list(loaded.column_names or next(iter(loaded))), names, where)
        loaded = loaded.cast_column(source.image, datasets.Image(decode=False))
        for number, row in enumerate(loaded, start=1):
            if source.filter and _value(row, source.filter.column, names) != source.filter.value:
                continue
            here = f"{place}: row {number}"
            image = read_rgb(partial(datasets.Image().decode_example, row[source.image]), here)
            if min(image.shape[:2]) < size:
                smaller += 1  # nobody can mend one image of the hub's
                continue
            text = _words(_value(row, source.caption, names)) if source.caption else ""
            pictures.append(Picture(text or NEUTRAL, encode_png(square(image, size, here))))
            if len(pictures) == most:
                break
    if smaller:
        print(f"{place}: passed over {smaller} images smaller than {size} x {size}", file=sys.stderr)
    if not pictures:
        asked = f" with {source.filter.column} {source.filter.value!r}" if source.filter else ""
        raise UserError(f"{place}, split {source.split}: no images{asked} of at least {size} x {size}")
    return pictures


def _check_columns(source: HubSource, columns: list[str], names: dict[str, list[str]], where: str) -> None:
    asked = {"image": source.image, "caption": source.caption}
    if source.filter:
        asked["filter.column"] = source.filter.column
    for key, column in asked.items():
        if column is not None and column not in columns:
            hint = nearest(column, columns)
            raise UserError(
                f"{where}: data.source.{key}: no column {column!r}{hint} in {source.dataset}; "
                f"allowed: {', '.join(columns)}"
            )
    if source.filter and source.filter.value not in (known := names.get(source.filter.column, [source.filter.value])):
        hint = nearest(source.filter.value, known) or f"; allowed: {', '.join(known[:20])}"
        raise UserError(f"{where}: data.source.filter.value: found {source.filter.value!r}{hint}")


def _class_names(features: Any) -> dict[str, list[str]]:
    """Columns that hold the index of a class, and the classes' names."""
    return {column: feature.names for column, feature in features.items() if hasattr(feature, "names")}


def _value(row: dict[str, Any], column: str, names: dict[str, list[str]]) -> str:
    value = row[column]
    return names[column][value] if column in names and isinstance(value, int) and value >= 0 else str(value or "")
