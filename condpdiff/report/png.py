"""Generated and real images in the report: files in `figures/`, data URIs in the page."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from condpdiff.common.errors import UserError

LARGEST = 256
"""Pixels of the longer side in the page; larger images are shrunk there, and there alone."""


@dataclass(frozen=True)
class Picture:
    """One PNG of the report, `figures/<name>.png`."""

    name: str
    alt: str
    png: bytes
    largest: int = LARGEST

    @property
    def file(self) -> str:
        return f"{self.name}.png"

    @property
    def inline(self) -> Markup:
        """The `<img>` element for the page."""
        data, buffer = self.png, io.BytesIO()
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > self.largest:
                image.thumbnail((self.largest, self.largest), Image.Resampling.LANCZOS)
                image.save(buffer, format="PNG")
                data = buffer.getvalue()
        uri = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
        return Markup('<img alt="{}" src="{}">').format(self.alt, uri)


def read_picture(path: Path, name: str, alt: str, largest: int = LARGEST) -> Picture:
    """Read one PNG.

    Raises:
        UserError: the file is absent, or is no PNG.
    """
    try:
        png = path.read_bytes()
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            image.load()
        return Picture(name, alt, png, largest)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro`") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # Pillow's for a broken PNG
        why = str(error).partition(" <_io.")[0]  # Pillow goes on with an address in memory
        raise UserError(f"{path}: not a readable PNG ({why})") from None
