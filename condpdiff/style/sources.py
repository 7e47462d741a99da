"""Where a style's images come from: rendered photographs, a folder, or the Hugging Face hub.

Every reader gives captions and square images of the style's size; a style's images leave here as PNG.
"""

import csv
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from condpdiff.common import packages
from condpdiff.common.errors import UserError, nearest
from condpdiff.style import rendering
from condpdiff.style.images import SUFFIXES, encode_png, read_rgb, square
from condpdiff.style.photographs import FRAMINGS, Photograph, photographs
from condpdiff.style.task import FolderSource, HubSource, RenderedSource, StyleImage, TaskData

RENDERED_PIXELS = 2
"""Pixels that are rendered for each one of a crop, along a side: strokes a little finer than pixels."""

CAPTIONS = "captions.csv"
NEUTRAL = "a picture"
"""Caption of images that come without one."""


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
        path = _existing(image.file, f"{place}.file")
        return read_rgb(lambda: Image.open(path), f"{place}.file: {path}")
    try:
        content = packages.read_member(str(image.package), str(image.member))
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
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
    folder = _existing(source.path, place)
    if not folder.is_dir():
        raise UserError(f"{place}: found {source.path!r}, a file; allowed: a folder of images")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    others = [path.name for path in files if path not in images and path.name != CAPTIONS]
    if others:
        print(f"{folder}: passed over {len(others)} other files ({', '.join(others[:5])})", file=sys.stderr)
    if not images:
        raise UserError(f"{place}: no images in {folder}; allowed: {', '.join(SUFFIXES)}")
    captions = _captions(folder / CAPTIONS, [path.name for path in images])
    return [Picture(captions[path.name], encode_png(square(_read_file(path), size, str(path)))) for path in images]


def _read_file(path: Path) -> np.ndarray:
    return read_rgb(lambda: Image.open(path), str(path))


def _captions(path: Path, names: list[str]) -> dict[str, str]:
    """The caption of every image: of `captions.csv` where there is one, else the file's name in words."""
    if not path.is_file():
        return {name: _words(Path(name).stem).rstrip(" 0123456789") or NEUTRAL for name in names}
    captions: dict[str, str] = {}
    for line, row in _csv_rows(path):
        name, text = row["file"], " ".join(row["caption"].split())
        if name in captions:
            raise UserError(f"{path}: line {line}: file {name!r} stands there twice; allowed: one caption an image")
        if name not in names:
            raise UserError(f"{path}: line {line}: no image {name!r} in {path.parent}{nearest(name, names)}")
        captions[name] = text
    without = [name for name in names if not captions.get(name)]
    if without:
        raise UserError(f"{path}: no caption of {without[0]!r} ({len(without)} of {len(names)} images have none)")
    return captions


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and columns file, caption of every row."""
    try:
        reader = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        header = next(reader, [])
        if sorted(header) != ["caption", "file"]:
            raise UserError(f"{path}: found columns {', '.join(header)!r}; allowed: 'file, caption'")
        for row in filter(None, reader):
            if len(row) != len(header):
                raise UserError(
                    f"{path}: line {reader.line_num}: found {len(row)} values, allowed: {len(header)} "
                    "(a caption with a comma stands in double quotes)"
                )
            yield reader.line_num, dict(zip(header, row, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as csv in UTF-8 ({error})") from None


def _words(value: str) -> str:
    return " ".join(value.replace("_", " ").replace("-", " ").split())


def _existing(path: str, place: str) -> Path:
    if not Path(path).exists():
        raise UserError(f"{place}: no such file or folder {path!r} (a relative path starts at the repository's root)")
    if Path(path).is_absolute():
        message = "an absolute path: other machines may lack it; a path in the repository is safer"
        print(f"warning: {place}: {path} is {message}", file=sys.stderr)
    return Path(path)


# --- the hub ------------------------------------------------------------------------------------


def _read_hub(source: HubSource, size: int, most: int, where: str) -> list[Picture]:
    """The first `most` images of a data set that pass the filter, read as a stream: such sets are tens of gigabytes."""
    # huggingface_hub reads these when it is imported; its own waits run into minutes behind a firewall.
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "10")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")
    import datasets
    import huggingface_hub

    place = f"{where}: data.source: hub data set {source.dataset}" + (f" ({source.config})" if source.config else "")
    pictures: list[Picture] = []
    smaller = 0
    try:
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            # load_dataset tries each file six times: one question shows at once whether the hub answers.
            huggingface_hub.HfApi().dataset_info(source.dataset, timeout=10)
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
    except UserError:
        raise
    except Exception as error:  # the hub's libraries raise dozens of kinds
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{place}: cannot be loaded with datasets.load_dataset ({reason}); "
            "or give its images locally: `data.source: {type: folder, path: FOLDER}`"
        ) from None
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
