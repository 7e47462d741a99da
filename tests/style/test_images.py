"""Images: any mode and way up gives RGB of the right size; a damaged or too small one is one line."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from condpdiff.common.errors import UserError
from condpdiff.style.images import encode_png, read_rgb, square

GREY = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
COLOURS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def read(image: Image.Image, form: str = "PNG", **options: object) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return read_rgb(lambda: Image.open(buffer), "it")


def message_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


WHITE = Image.new("L", (8, 8), 255)


@pytest.mark.parametrize(
    ("image", "form", "expected"),
    [
        (Image.fromarray(COLOURS), "PNG", COLOURS),
        (Image.fromarray(GREY), "PNG", GREY[..., None]),
        *((WHITE.convert(mode), "PNG", 255) for mode in ("L", "1", "LA", "P")),
        *((Image.fromarray(GREY.astype(np.uint16) * 257), form, GREY[..., None]) for form in ("PNG", "TIFF")),
    ],
)
def test_any_mode_becomes_rgb_and_16_bits_are_scaled(image: Image.Image, form: str, expected: np.ndarray | int) -> None:
    found = read(image, form)
    assert found.shape == (8, 8, 3)
    assert (found == expected).all()


def test_transparent_parts_are_white() -> None:
    clear = np.dstack([COLOURS, np.zeros((8, 8), np.uint8)])
    clear[:4, :, 3] = 255
    found = read(Image.fromarray(clear))
    assert (found[:4] == COLOURS[:4]).all()
    assert (found[4:] == 255).all()


def test_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0])
    assert (read(image, "GIF", transparency=0) == 255).all()


def test_cmyk_is_converted() -> None:
    red = read(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert red[8, 8, 0] > 200
    assert red[8, 8, 1] < 60


def test_image_is_turned_the_way_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    wide = np.concatenate([COLOURS, COLOURS], 1)
    found = read(Image.fromarray(wide), exif=exif)
    assert found.shape == (16, 8, 3)
    assert (found == np.rot90(wide, -1)).all()


def test_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    assert (read(frames[0], "GIF", save_all=True, append_images=frames[1:]) == 255).all()


def test_floating_point_pixels_are_refused() -> None:
    assert "floating-point" in message_of(lambda: read(Image.fromarray(GREY.astype(np.float32)), "TIFF"))


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_named(content: bytes) -> None:
    message = message_of(lambda: read_rgb(lambda: Image.open(io.BytesIO(content)), "cats/one.png"))
    assert message.startswith("cats/one.png: not a")
    assert "0x" not in message


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_cut_off_image_is_named(form: str) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, form)
    half = buffer.getvalue()[: len(buffer.getvalue()) // 2]
    message = message_of(lambda: read_rgb(lambda: Image.open(io.BytesIO(half)), "cats/one"))
    assert message.startswith("cats/one: not a readable image (")


def test_square_is_the_middle_of_a_larger_image_and_the_right_size_is_not_touched() -> None:
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 200
    assert (square(image, 10, "it") == np.full((10, 10, 3), 200)).all()
    assert (square(COLOURS, 8, "it") == COLOURS).all()


@pytest.mark.parametrize("shape", [(8, 7), (7, 8), (1, 1)])
def test_smaller_image_is_named_with_its_size(shape: tuple[int, int]) -> None:
    message = message_of(lambda: square(np.zeros((*shape, 3), np.uint8), 8, "cats/one.png"))
    assert message.startswith(f"cats/one.png: found {shape[1]} x {shape[0]} pixels, allowed: at least 8 x 8")


def test_png_has_the_same_bytes_for_the_same_pixels() -> None:
    assert encode_png(COLOURS) == encode_png(COLOURS.copy())
    assert (np.asarray(Image.open(io.BytesIO(encode_png(COLOURS)))) == COLOURS).all()
